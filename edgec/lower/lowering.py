"""The whole of lowering: an optimised graph in, a program and its unbuilt kernels out."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from edgec.graph import Graph
from edgec.lower.convert import ORIGIN, to_relax
from edgec.lower.extract import Lowered, extract
from edgec.lower.origins import trace
from edgec.program import Tensor

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
    """Inputs and outputs of a graph with static shapes."""
    inputs = [_tensor(tensor) for tensor in graph.gs.inputs]
    return inputs, [_tensor(tensor) for tensor in graph.gs.outputs]


def lower_graph(graph: Graph, name: str, states: list[tuple[str, str]]) -> Lowered:
    """Lower `graph` to a program called `name`; `states` are (output, input) names.

    Raises:
        LoweringError: every node that cannot be lowered, all at once.
    """
    inputs, outputs = signature(graph)
    module = to_relax(graph)
    origin = dict(module.attrs[ORIGIN])
    with tvm.transform.PassContext(opt_level=3):
        separate = tvm.transform.Sequential(list(TO_KERNELS))(module)
        grouped = relax.transform.FuseOps()(separate)
        nodes = trace(separate, grouped, origin)
        fused = tvm.transform.Sequential(list(TO_FUSED_KERNELS))(grouped)
    return extract(fused, name, inputs, outputs, states, nodes)


def _tensor(tensor: object) -> Tensor:
    name, dtype, shape = tensor.name, tensor.dtype, tensor.shape  # type: ignore[attr-defined]
    return Tensor(name, np.dtype(dtype).name, tuple(int(extent) for extent in shape))
