"""The whole of lowering: an optimised graph in, a program and its unbuilt kernels out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
import tvm
from tvm import relax

from edgec.graph import Graph
from edgec.inspect import macs
from edgec.lower.attention_kernel import join_attention
from edgec.lower.chain import feeds_depthwise
from edgec.lower.context import ELEMENTWISE
from edgec.lower.convert import EXTENTS, ORIGIN, to_relax
from edgec.lower.extract import Lowered, extract
from edgec.lower.interrupt import uninterrupted
from edgec.lower.joined import join
from edgec.lower.origins import trace
from edgec.lower.views import VIEWS
from edgec.program import Call, Program, Step, Tensor
from edgec.targets import Target
from edgec.tensors import is_static

TO_KERNELS: tuple[tvm.transform.Pass, ...] = (
    relax.transform.CanonicalizeBindings(),
    relax.transform.DeadCodeElimination(),
    relax.transform.LegalizeOps(skip_ops=list(VIEWS)),
    relax.transform.AnnotateTIROpPattern(),
)
"""Relax operators to calls of TIR kernels, but for those that move nothing. Constants were folded
before, in numpy."""

TO_FUSED_KERNELS: tuple[tvm.transform.Pass, ...] = (
    relax.transform.FuseTIR(),
    relax.transform.RewriteDataflowReshape(),
)
"""After FuseOps: each group one kernel, and reshapes that move no data recognised."""


def signature(graph: Graph) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a graph; an output with an extent that a run decides at its largest.

    Raises:
        LoweringError: a shape is known at run time only; names the nodes that make it so.
    """
    if all(map(is_static, (*graph.gs.inputs, *graph.gs.outputs))):
        shapes = [tensor.shape for tensor in graph.gs.outputs]
    else:
        shapes = [result.shape for result in to_relax(graph)["main"].body.body.ty.fields]
    inputs = [_tensor(tensor, tensor.shape) for tensor in graph.gs.inputs]
    return inputs, list(map(_tensor, graph.gs.outputs, shapes))


def lower_graph(
    graph: Graph, name: str, states: list[tuple[str, str]], target: Target, winograd: int = 0
) -> Lowered:
    """Lower `graph` for `target` to a program called `name`; `states` are (output, input) names.

    `winograd` is the size of the tiles by which 3x3 convolutions are computed
    (`edgec.lower.winograd`), 0 for the plain sum.

    Raises:
        LoweringError: every node that cannot be lowered, all at once.
    """
    operators = to_relax(graph, target.channel_block, winograd, target.dots)
    inputs, outputs = signature(graph)
    separate, grouped, fused = fusion(operators)
    nodes = trace(separate, grouped, dict(operators.attrs[ORIGIN]))
    extents = [(int(output), int(axis)) for output, axis in operators.attrs[EXTENTS]]
    with uninterrupted():
        chained = join_attention(join(fused, nodes, feeds_depthwise), nodes)
    with uninterrupted():
        lowered = extract(chained, name, inputs, outputs, states, extents, nodes)
    lowered.program.steps = _with_macs(lowered.program, graph)
    return lowered


def _with_macs(program: Program, graph: Graph) -> list[Step]:
    """The steps, each call with the multiply-accumulates of the nodes that it alone computes.

    They are those of the operators' definitions; where there are none, what its loops do stands.
    """
    known = {node.name or node.outputs[0].name: macs(node) or 0 for node in graph.gs.nodes}
    calls = Counter(name for call in program.calls() for name in call.nodes)
    return [
        replace(step, macs=sum(known.get(n, 0) for n in step.nodes if calls[n] == 1) or step.macs)
        if isinstance(step, Call)
        else step
        for step in program.steps
    ]


def fusion(operators: tvm.IRModule) -> tuple[tvm.IRModule, tvm.IRModule, tvm.IRModule]:
    """Relax operators as separate kernels, as groups of kernels, and as fused kernels."""
    with tvm.transform.PassContext(opt_level=3):
        with uninterrupted():
            separate = _elementwise(tvm.transform.Sequential(list(TO_KERNELS))(operators))
        with uninterrupted():
            grouped = relax.transform.FuseOps()(separate)
        with uninterrupted():
            return separate, grouped, tvm.transform.Sequential(list(TO_FUSED_KERNELS))(grouped)


def _elementwise(module: tvm.IRModule) -> tvm.IRModule:
    """`module` with the pattern of kernels that say so themselves: TVM finds another one, and an
    `op_pattern` of 0, which this is, it takes for none."""
    for variable, function in module.functions.items():
        if function.attrs is not None and ELEMENTWISE in function.attrs:
            module.update_func(variable, function.with_attr("op_pattern", 0))
    return module


def _tensor(tensor: gs.Tensor, shape: Iterable[int]) -> Tensor:
    return Tensor(tensor.name, np.dtype(tensor.dtype).name, tuple(map(int, shape)))
