"""The whole of lowering: an optimised graph in, a program and its unbuilt kernels out."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from edgec.graph import Graph
from edgec.lower.convert import ORIGIN, to_relax
from edgec.lower.extract import Lowered, extract
from edgec.program import Tensor

PIPELINE: tuple[tvm.transform.Pass, ...] = (
    relax.transform.CanonicalizeBindings(),
    relax.transform.LegalizeOps(),
    relax.transform.AnnotateTIROpPattern(),
    relax.transform.FuseOps(),
    relax.transform.FuseTIR(),
    relax.transform.RewriteDataflowReshape(),
    relax.transform.DeadCodeElimination(),
)
"""From Relax operators to calls of fused TIR kernels. Constants are folded before, in numpy."""


def signature(graph: Graph) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a graph with static shapes."""
    inputs = [_tensor(tensor) for tensor in graph.gs.inputs]
    return inputs, [_tensor(tensor) for tensor in graph.gs.outputs]


def fuse(graph: Graph) -> tvm.IRModule:
    """The graph as calls of fused TIR kernels.

    Raises:
        LoweringError: every node that cannot be lowered, all at once.
    """
    module = to_relax(graph)
    with tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(list(PIPELINE))(module)


def lower_graph(graph: Graph, name: str, states: list[tuple[str, str]]) -> Lowered:
    """Lower `graph` to a program called `name`; `states` are (output, input) names."""
    inputs, outputs = signature(graph)
    module = fuse(graph)
    return extract(module, name, inputs, outputs, states, dict(module.attrs[ORIGIN]))


def _tensor(tensor: object) -> Tensor:
    name, dtype, shape = tensor.name, tensor.dtype, tensor.shape  # type: ignore[attr-defined]
    return Tensor(name, np.dtype(dtype).name, tuple(int(extent) for extent in shape))
