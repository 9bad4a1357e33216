"""ONNX's native code (checker, inliner, converter, shape inference) on serialized models.

Every function maps bytes to bytes. `edgec.sandbox` runs this file as a child process, by path, so
it imports nothing of edgec; a trusted model is served in process by the same functions.

A request is a 4-byte length, a JSON header {"call", "seconds", "bytes", "args"} and the model; a
reply is the same with {"error"} in its header when the call failed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import sys
from collections.abc import Callable, Collection
from typing import IO, Any

import onnx
import onnx.checker
import onnx.helper
import onnx.inliner
import onnx.numpy_helper
import onnx.shape_inference
import onnx.version_converter
from onnx.onnx_cpp2py_export import checker as _checker
from onnx.onnx_cpp2py_export import inliner as _inliner
from onnx.onnx_cpp2py_export import shape_inference as _inference
from onnx.onnx_cpp2py_export import version_converter as _converter


def prepare(
    model: bytes, source: int, opset: int, functions: bool, forget: Collection[str]
) -> bytes:
    """Check, inline local functions, convert from opset `source` to `opset`, infer types.

    A model newer than `opset` that uses what `opset` lacks stays as it is. The declared shapes of
    the outputs named in `forget` are inferred anew.
    """
    proto = onnx.ModelProto.FromString(model)
    tensors = [o.type.tensor_type for o in proto.graph.output if o.name in forget]
    if not all(t.HasField("shape") for t in tensors):
        model = bytes(_inference.infer_shapes(model, False, False, False))
    _checker.check_model(model, False, False, False)
    for tensor in tensors:
        tensor.ClearField("shape")
    model = proto.SerializeToString()
    if functions:
        model = _inliner.inline_local_functions(model, True)
    if source == opset:
        return infer(model)
    try:
        converted = convert_to(model, opset)
    except (_converter.ConvertError, RuntimeError):
        if source < opset:
            raise
        converted = model
    return infer(_keep_old_resize(converted) if source < 11 else converted)


def _keep_old_resize(model: bytes) -> bytes:
    """Resize as before opset 11: asymmetric, and nearest takes the lower or, downwards, the upper.

    onnx's converter leaves out the attributes that say so.
    """
    proto = onnx.ModelProto.FromString(model)
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "Resize" or any(a.name == "nearest_mode" for a in node.attribute):
            continue
        factors = scales.get(node.input[2]) if len(node.input) > 2 else None
        shrinks = factors is not None and (factors <= 1).all() and (factors < 1).any()
        for name, value in (
            ("coordinate_transformation_mode", "asymmetric"),
            ("nearest_mode", "ceil" if shrinks else "floor"),
        ):
            node.attribute.append(onnx.helper.make_attribute(name, value))
    return bytes(proto.SerializeToString())


def convert_to(model: bytes, opset: int) -> bytes:
    """The model at `opset` of the default domain."""
    return bytes(_converter.convert_version(model, opset))


def infer(model: bytes) -> bytes:
    """The model with types and shapes of its tensors in `value_info` and in its outputs.

    An operator that contradicts its inputs is an error. Values (shape arithmetic) are followed
    where onnx can: it sets them no limit, and gets some expressions of several axes wrong. Nor does
    it infer every operator that it defines by a function (MeanVarianceNormalization, in 1.23).
    """
    try:
        return bytes(_inference.infer_shapes(model, True, True, True))
    except (MemoryError, _inference.InferenceError):
        pass
    try:
        return bytes(_inference.infer_shapes(model, True, True, False))
    except _inference.InferenceError as error:
        operator = re.search(r"\(op_type:(\w+)", str(error))
        if operator is None or not _is_function(operator[1]):
            raise
        return bytes(_inference.infer_shapes(model, True, False, False))


def _is_function(operator: str) -> bool:
    try:
        schema = onnx.defs.get_schema(operator)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def validate(model: bytes) -> bytes:
    """`model` itself, when ONNX's checker accepts it and its types and shapes agree."""
    _checker.check_model(model, False, False, False)
    infer(model)
    return model


CALLS: dict[str, Callable[..., bytes]] = {
    "prepare": prepare,
    "convert_to": convert_to,
    "infer": infer,
    "validate": validate,
}


KEPT_BYTES = 1 << 28
"""What a helper may hold between requests; not all that a bomb made ONNX allocate comes back."""


def write_message(stream: IO[bytes], header: dict[str, Any], body: bytes) -> None:
    """One length-prefixed message: the header as JSON, then `body`."""
    text = json.dumps({**header, "size": len(body)}).encode()
    stream.write(struct.pack("<I", len(text)) + text)
    stream.write(body)
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """The next message; EOFError when the other side is gone."""
    header = json.loads(_exactly(stream, struct.unpack("<I", _exactly(stream, 4))[0]))
    return header, _exactly(stream, header["size"])


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _held(field: int) -> int:
    """Bytes of memory of this process: `field` 0 is all it asked for, 1 what it really has."""
    import resource

    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[field]) * resource.getpagesize()


def _limit_memory(extra: int) -> None:
    import resource

    used = _held(0)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, hard))


def serve() -> None:
    """Answer requests from standard input until it ends.

    A request's time limit is a timer whose default action ends this process, also inside native
    code. The end of standard input ends it too, so it does not outlive the process that started it.
    """
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        try:
            header, model = read_message(requests)
        except EOFError:
            return
        if sys.platform == "linux":
            _limit_memory(header["bytes"])
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, header["seconds"])
        answer = b""
        reply: dict[str, Any] = {}
        try:
            answer = CALLS[header["call"]](model, *header["args"])
        except Exception as failure:
            reply = {"error": str(failure) or type(failure).__name__}
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        reply["bloated"] = sys.platform == "linux" and _held(1) > KEPT_BYTES
        write_message(replies, reply, answer)


if __name__ == "__main__":
    serve()
