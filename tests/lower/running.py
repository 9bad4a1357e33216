"""Runs a graph as lowered, in this process: Relax, fusion, edgec's schedules for this host, LLVM
and TVM's own virtual machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from onnx import ModelProto
from tvm import relax, tirx

from edgec.graph import Graph, load
from edgec.lower.convert import EXTENTS, to_relax
from edgec.lower.kernels import tvm_target
from edgec.lower.lowering import TO_FUSED_KERNELS, TO_KERNELS
from edgec.lower.repeat import Loop, is_body
from edgec.packing import is_packed, pack, unpack
from edgec.targets import host
from edgec.targets.cpu import schedule

HOST = host()
TARGET = tvm_target(HOST)
FUSE = tvm.transform.Sequential(
    [*TO_KERNELS, relax.transform.FuseOps(), *TO_FUSED_KERNELS, relax.transform.LegalizeOps()]
)


def run(graph: Graph, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The graph's outputs for inputs given by name."""
    module = to_relax(graph, HOST.channel_block)
    with TARGET, tvm.transform.PassContext(opt_level=3):
        fused = FUSE(module)
        for variable, function in fused.functions.items():
            if isinstance(function, tirx.PrimFunc):
                scheduled = _with_libm(schedule(function, HOST, strict=True))
                fused[variable] = _without_dots(scheduled)
        for variable, function in fused.functions.items():
            if is_body(function):
                name = variable.name_hint
                repeated = _repeated(Loop.of(function), lambda *a, n=name: machine[n](*a))
                tvm.register_global_func(f"edgec.repeat.{name}", repeated, override=True)
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


def _with_libm(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with libm's tanh and erf: what TVM's machine makes of its own tanh cancels near 0,
    and it has no erf for vectors."""

    def called(call: tvm.ir.Call) -> Any:
        if isinstance(call.op, tvm.ir.Op) and call.op.name in ("tirx.tanh", "tirx.erf"):
            name = call.op.name.removeprefix("tirx.")
            return tirx.call_pure_extern("float32", f"{name}f", call.args[0])
        return call

    return tvm_ffi.structural_map(function, (tvm.ir.Call, called))


def _without_dots(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with plain arithmetic for the operators of `edgec.lower.dot`, which only edgec's
    own way to LLVM expands."""

    def unsigned(value: Any, place: int) -> Any:
        return (value >> (8 * place)) & 255

    def signed(value: Any, place: int) -> Any:
        return (value << (24 - 8 * place)) >> 24

    def plain(call: tvm.ir.Call) -> Any:
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name == "edgec.quad":
            parts = [(b.astype("int32") & 255) << (8 * k) for k, b in enumerate(call.args)]
            return parts[0] + parts[1] + parts[2] + parts[3]
        if name == "edgec.dot4":
            a, w = (tirx.Cast("int32", each) for each in call.args)
            return sum(unsigned(a, k) * signed(w, k) for k in range(4))
        if name == "edgec.to_nearest":
            return tirx.nearbyint(call.args[0]).astype("int32")
        if name == "edgec.rounded":
            return call.args[0]
        return call

    return tvm_ffi.structural_map(function, (tvm.ir.Call, plain))


def _repeated(loop: Loop, body: Callable[..., Any]) -> Callable[..., None]:
    """What a call of `body` as a loop does: arguments, then results, which it writes."""

    def call(*tensors: Any) -> None:
        first, made = tensors[: len(tensors) - results], tensors[len(tensors) - results :]
        carried = list(first[: loop.carried])
        scanned = [t.numpy() for t in first[loop.carried : loop.carried + len(loop.scanned)]]
        others = first[loop.carried + len(loop.scanned) :]
        yielded = [np.empty(t.shape, t.dtype) for t in made[loop.carried :]]
        for turn in range(loop.times):
            places = [loop.times - 1 - turn if back else turn for back in loop.scanned]
            slices = [
                tvm.runtime.tensor(np.array(x[i], order="C"))
                for x, i in zip(scanned, places, strict=True)
            ]
            values = list(body(*carried, *slices, *others))
            carried = values[: loop.carried]
            for whole, back, value in zip(
                yielded, loop.yielded, values[loop.carried :], strict=True
            ):
                whole[loop.times - 1 - turn if back else turn] = value.numpy()
        for target, value in zip(made, [*(c.numpy() for c in carried), *yielded], strict=True):
            target.copyfrom(value)

    results = loop.carried + len(loop.yielded)
    return call


def run_model(model: ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    """The model's outputs for inputs in its own order."""
    graph = load(model, trusted=True)
    return run(graph, {t.name: x for t, x in zip(graph.gs.inputs, inputs, strict=True)})
