"""Runs a graph as lowered, in this process: Relax, fusion, edgec's schedules for this host, LLVM
and TVM's own virtual machine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm
from onnx import ModelProto
from tvm import relax, tirx

from edgec.graph import Graph, load
from edgec.lower.convert import EXTENTS, to_relax
from edgec.lower.kernels import tvm_target
from edgec.lower.lowering import TO_FUSED_KERNELS, TO_KERNELS
from edgec.packing import is_packed, pack, unpack
from edgec.targets import host
from edgec.targets.cpu import schedule

HOST = host()
TARGET = tvm_target(HOST)
FUSE = tvm.transform.Sequential([*TO_KERNELS, relax.transform.FuseOps(), *TO_FUSED_KERNELS])


def run(graph: Graph, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The graph's outputs for inputs given by name."""
    module = to_relax(graph, HOST.channel_block)
    with TARGET, tvm.transform.PassContext(opt_level=3):
        fused = FUSE(module)
        for variable, function in fused.functions.items():
            if isinstance(function, tirx.PrimFunc):
                fused[variable] = schedule(function, HOST, strict=True)
        machine = relax.VirtualMachine(tvm.compile(fused, TARGET), tvm.cpu())
    arguments = [_stored(np.array(feeds[tensor.name], order="C")) for tensor in graph.gs.inputs]
    made = [out.numpy() for out in machine["main"](*map(tvm.runtime.tensor, arguments))]
    outputs, counts = made[: len(graph.gs.outputs)], made[len(graph.gs.outputs) :]
    for (index, axis), count in zip(module.attrs[EXTENTS], counts, strict=True):
        shape = list(outputs[index].shape)
        shape[axis] = count.item()
        outputs[index] = outputs[index].ravel()[: np.prod(shape)].reshape(shape)
    return [
        unpack(out, tensor.dtype.name, tensor.shape) if is_packed(tensor.dtype.name) else out
        for tensor, out in zip(graph.gs.outputs, outputs, strict=True)
    ]


def _stored(array: np.ndarray) -> np.ndarray:
    return pack(array) if is_packed(array.dtype.name) else array


def run_model(model: ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    """The model's outputs for inputs in its own order."""
    graph = load(model, trusted=True)
    return run(graph, {t.name: x for t, x in zip(graph.gs.inputs, inputs, strict=True)})
