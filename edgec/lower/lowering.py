"""The whole of lowering: an optimised graph in, a program and its unbuilt kernels out."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from edgec.errors import LoweringError
from edgec.graph import Graph
from edgec.lower.convert import ORIGIN, to_relax
from edgec.lower.extract import Lowered, extract
from edgec.lower.origins import trace
from edgec.program import Tensor
from edgec.targets import Target
from edgec.tensors import is_static

TO_KERNELS: tuple[tvm.transform.Pass, ...] = (
    relax.transform.CanonicalizeBindings(),
    relax.transform.LegalizeOps(),
    relax.transform.AnnotateTIROpPattern(),
)
"""Relax operators to calls of TIR kernels. Constants were folded before, in numpy."""

TO_FUSED_KERNELS: tuple[tvm.transform.Pass, ...] = (
    relax.transform.FuseTIR(),
    relax.transform.RewriteDataflowReshape(),
)
"""After FuseOps: each group one kernel, and reshapes that move no data recognised."""


def signature(graph: Graph) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a graph with static shapes.

    Raises:
        LoweringError: a shape is known at run time only; names the nodes that make it so.
    """
    for tensor in (*graph.gs.inputs, *graph.gs.outputs):
        if not is_static(tensor):
            to_relax(graph)
            raise LoweringError(
                "its shape is known at run time only", where=f"output '{tensor.name}'"
            )
    inputs = [_tensor(tensor) for tensor in graph.gs.inputs]
    return inputs, [_tensor(tensor) for tensor in graph.gs.outputs]


def lower_graph(graph: Graph, name: str, states: list[tuple[str, str]], target: Target) -> Lowered:
    """Lower `graph` for `target` to a program called `name`; `states` are (output, input) names.

    Raises:
        LoweringError: every node that cannot be lowered, all at once.
    """
    operators = to_relax(graph, target.channel_block)
    inputs, outputs = signature(graph)
    separate, grouped, fused = fusion(operators)
    nodes = trace(separate, grouped, dict(operators.attrs[ORIGIN]))
    return extract(fused, name, inputs, outputs, states, nodes)


def fusion(operators: tvm.IRModule) -> tuple[tvm.IRModule, tvm.IRModule, tvm.IRModule]:
    """Relax operators as separate kernels, as groups of kernels, and as fused kernels."""
    with tvm.transform.PassContext(opt_level=3):
        separate = tvm.transform.Sequential(list(TO_KERNELS))(operators)
        grouped = relax.transform.FuseOps()(separate)
        return separate, grouped, tvm.transform.Sequential(list(TO_FUSED_KERNELS))(grouped)


def _tensor(tensor: object) -> Tensor:
    name, dtype, shape = tensor.name, tensor.dtype, tensor.shape  # type: ignore[attr-defined]
    return Tensor(name, np.dtype(dtype).name, tuple(int(extent) for extent in shape))
