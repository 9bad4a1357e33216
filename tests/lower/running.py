"""Runs a graph as lowered, in this process: Relax, fusion, LLVM, TVM's own virtual machine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm
from onnx import ModelProto
from tvm import relax

from edgec.graph import Graph, load
from edgec.lower.convert import to_relax
from edgec.lower.lowering import TO_FUSED_KERNELS, TO_KERNELS

TARGET = tvm.target.Target("llvm")
FUSE = tvm.transform.Sequential([*TO_KERNELS, relax.transform.FuseOps(), *TO_FUSED_KERNELS])


def run(graph: Graph, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The graph's outputs for inputs given by name."""
    with TARGET, tvm.transform.PassContext(opt_level=3):
        machine = relax.VirtualMachine(tvm.compile(FUSE(to_relax(graph)), TARGET), tvm.cpu())
    arguments = [np.array(feeds[tensor.name], order="C") for tensor in graph.gs.inputs]
    return [out.numpy() for out in machine["main"](*map(tvm.runtime.tensor, arguments))]


def run_model(model: ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    """The model's outputs for inputs in its own order."""
    graph = load(model, trusted=True)
    return run(graph, {t.name: x for t, x in zip(graph.gs.inputs, inputs, strict=True)})
