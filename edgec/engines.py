"""The engines that run a model, edgec's own and its peers, served from a process each.

`edgec.peers` starts this file as a child process, by path: it imports nothing of edgec, so that the
engine alone is measured. A message is a 4-byte length, a JSON header, and the bytes of the arrays
that its "arrays" describes, in C order. Requests, by "do":

    load     engine, path, threads, options -> import_s, create_s, inputs, outputs; with the option
             "native", the library of burst.c, bursts are called from C (`edgec.fromc`)
    run      arrays -> arrays, seconds
    bind     arrays -> (kept as the caller's buffers of every burst)
    burst    calls, rest_s -> ns: the time of each call
    memory   -> resident, baseline: bytes now, and before the engine was imported

A reply with "error" in its header is a failure of the engine.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import json
import math
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LOADER = Path(__file__).parent / "runtime" / "load.py"
FROM_C = Path(__file__).with_name("fromc.py")


class Engine(Protocol):
    """A loaded model."""

    inputs: list[str]
    outputs: list[str]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs, in arrays of their own."""

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """A call that runs the model from these buffers into others that stay the same."""


class Edgec:
    """A compiled artifact in its own runtime. Options: spin_us, device."""

    def __init__(self, path: str, threads: int, options: Mapping[str, Any]) -> None:
        self._module = _sibling(LOADER).load(
            path,
            threads=threads,
            spin_us=options.get("spin_us"),
            device=options.get("device", 0),
        )
        self.inputs = [tensor.name for tensor in self._module.inputs]
        self.outputs = [tensor.name for tensor in self._module.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(self._module.run(inputs))

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        call: Callable[[], object] = self._module.bind(inputs)
        return call

    def native(self, library: str, inputs: Mapping[str, Array]) -> Callable[[int], list[int]]:
        """Bursts called from C."""
        burst: Callable[[int], list[int]] = _sibling(FROM_C).edgec(library, self.bind(inputs))
        return burst


class OnnxRuntime:
    """ONNX Runtime on its CPU provider. Options: optimize, dims (sizes of symbolic ones)."""

    def __init__(self, path: str, threads: int, options: Mapping[str, Any]) -> None:
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 4
        if not options.get("optimize", True):
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        for name, size in options.get("dims", {}).items():
            settings.add_free_dimension_override_by_name(name, size)
        self._file = path, threads
        self._session = ort.InferenceSession(path, settings, ["CPUExecutionProvider"])
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        values = self._session.run(None, dict(inputs))
        return {name: np.asarray(v) for name, v in zip(self.outputs, values, strict=True)}

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        buffers = self.run(inputs)
        for name, array in buffers.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._kept = (binding, inputs, buffers)
        # What Python's wrapper calls, without the wrapper.
        run = self._session._sess.run_with_iobinding
        return functools.partial(run, binding._iobinding, None)

    def native(self, library: str, inputs: Mapping[str, Array]) -> Callable[[int], list[int]]:
        """Bursts called from C, of a session of their own."""
        outputs = self.run(inputs)
        burst: Callable[[int], list[int]] = _sibling(FROM_C).onnxruntime(
            library, *self._file, inputs, outputs
        )
        return burst


class OnnxReference:
    """ONNX's own reference implementation, in numpy: slow, and what the standard means."""

    def __init__(self, path: str, threads: int, options: Mapping[str, Any]) -> None:
        from onnx.reference import ReferenceEvaluator

        self._evaluator = ReferenceEvaluator(path)
        self.inputs = list(self._evaluator.input_names)
        self.outputs = list(self._evaluator.output_names)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        values = self._evaluator.run(None, dict(inputs))
        return {name: np.asarray(v) for name, v in zip(self.outputs, values, strict=True)}

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        return functools.partial(self.run, inputs)


class OpenVino:
    """OpenVINO's CPU plugin in float32, tuned for latency. Options: shapes (by input)."""

    def __init__(self, path: str, threads: int, options: Mapping[str, Any]) -> None:
        import openvino as ov

        core = ov.Core()
        model = core.read_model(path)
        shapes = options.get("shapes", {})
        if model.is_dynamic() and shapes:
            model.reshape({name: ov.PartialShape(shape) for name, shape in shapes.items()})
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._tensor = ov.Tensor
        self._compiled = core.compile_model(model, "CPU", settings)
        self._request = self._compiled.create_infer_request()
        self.inputs = [port.get_any_name() for port in self._compiled.inputs]
        self.outputs = [port.get_any_name() for port in self._compiled.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        results = self._request.infer(dict(inputs))
        return {name: np.array(results[name]) for name in self.outputs}

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        buffers = {**inputs, **self.run(inputs)}
        request = self._compiled.create_infer_request()
        for port in (*self._compiled.inputs, *self._compiled.outputs):
            if not port.partial_shape.is_static and port in self._compiled.outputs:
                continue
            array = buffers[port.get_any_name()]
            request.set_tensor(port, self._tensor(array, shared_memory=True))

        self._kept = buffers
        # What Python's wrapper calls, without the wrapper, which packs results in every call.
        native: Any = super(type(request), request)
        return functools.partial(native.infer, {}, share_outputs=True, decode_strings=False)


class Iree:
    """A module that IREE compiled from the model. Options: inputs, outputs (names, in order)."""

    def __init__(self, path: str, threads: int, options: Mapping[str, Any]) -> None:
        runtime: Any = importlib.import_module("iree.runtime")
        runtime.flags.parse_flags(f"--task_topology_group_count={threads}")
        config = runtime.Config("local-sync" if threads == 1 else "local-task")
        module = runtime.VmModule.mmap(config.vm_instance, path)
        context = runtime.SystemContext(config=config)
        context.add_vm_module(module)
        entry = next(n for n in module.function_names if not n.startswith("__") and "$" not in n)
        self._function = context.modules[module.name][entry]
        self._to_device = functools.partial(runtime.asdevicearray, config.device)
        self.inputs = list(options["inputs"])
        self.outputs = list(options["outputs"])

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        results = self.bind(inputs)()
        values = results if isinstance(results, (list, tuple)) else [results]
        return {name: np.asarray(v) for name, v in zip(self.outputs, values, strict=True)}

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], Any]:
        return functools.partial(
            self._function, *(self._to_device(inputs[name]) for name in self.inputs)
        )


ENGINES: dict[str, Callable[[str, int, Mapping[str, Any]], Engine]] = {
    "edgec": Edgec,
    "onnx": OnnxReference,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "iree": Iree,
}


def send(stream: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write one message. TypeError for arrays that are not plain numbers."""
    described = []
    for name, array in arrays.items():
        if array.dtype.kind not in "biufcV":
            raise TypeError(f"{name!r} holds {array.dtype}, not numbers")
        described.append([name, array.dtype.name, array.shape])
    text = json.dumps({**header, "arrays": described}).encode()
    stream.write(struct.pack("<I", len(text)) + text)
    for array in arrays.values():
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The next message; EOFError when the other side is gone."""
    header = json.loads(_exactly(stream, struct.unpack("<I", _exactly(stream, 4))[0]))
    arrays = {}
    for name, dtype_name, shape in header["arrays"]:
        dtype = _dtype(dtype_name)
        data = _exactly(stream, math.prod(shape) * dtype.itemsize)
        arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    return header, arrays


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(stream.read(size))
    if len(data) != size:
        raise EOFError("the stream ends early")
    return data


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype


class _Server:
    """What one process holds: an engine, once loaded, and its bound call."""

    def __init__(self) -> None:
        self._baseline = _resident_bytes()
        self._engine: Engine | None = None
        self._burst: Callable[[int], list[int]] | None = None
        self._library: str | None = None

    def answer(
        self, request: Mapping[str, Any], arrays: dict[str, Array]
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Serve one request."""
        match request["do"], self._engine, self._burst:
            case "load", _, _:
                return self._load(**request["args"]), {}
            case "run", engine, _ if engine is not None:
                start = time.perf_counter()
                outputs = engine.run(arrays)
                return {"seconds": time.perf_counter() - start}, outputs
            case "bind", engine, _ if engine is not None:
                self._burst = self._bursts(engine, arrays)
                return {}, {}
            case "burst", _, burst if burst is not None:
                time.sleep(request["args"]["rest_s"])
                return {"ns": burst(request["args"]["calls"])}, {}
            case "memory", _, _:
                return {"resident": _resident_bytes(), "baseline": self._baseline}, {}
        raise ValueError(f"{request['do']!r} is unknown, or comes too early")

    def _bursts(self, engine: Engine, arrays: dict[str, Array]) -> Callable[[int], list[int]]:
        if self._library is None:
            return functools.partial(_timed, engine.bind(arrays))
        if not isinstance(engine, Edgec | OnnxRuntime):
            raise ValueError("it cannot be called from C")
        return engine.native(self._library, arrays)

    def _load(
        self, engine: str, path: str, threads: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        start = time.perf_counter()
        _import(engine)
        imported = time.perf_counter()
        self._engine = ENGINES[engine](path, threads, options)
        self._library = options.get("native")
        created = time.perf_counter()
        return {
            "import_s": imported - start,
            "create_s": created - imported,
            "inputs": self._engine.inputs,
            "outputs": self._engine.outputs,
        }


def _timed(call: Callable[[], object], calls: int) -> list[int]:
    """Nanoseconds of each of `calls` calls."""
    clock = time.perf_counter_ns
    times = [0] * calls
    for index in range(calls):
        start = clock()
        call()
        times[index] = clock() - start
    return times


def _import(engine: str) -> None:
    if engine == "edgec":
        _sibling(LOADER)
    else:
        importlib.import_module("iree.runtime" if engine == "iree" else engine)


def _sibling(path: Path) -> Any:
    """A module of edgec that needs nothing else of it, by path."""
    name = f"edgec_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"nothing to import at {path}")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _resident_bytes() -> int:
    """Resident memory of this process now; where /proc is absent, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


def _die_with_parent() -> None:
    """Have Linux kill this process, stopped or not, when its parent dies."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def serve() -> None:
    """Answer requests from standard input until it ends. Engines' own prints go to stderr."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    server = _Server()
    while True:
        try:
            request, arrays = receive(requests)
        except EOFError:
            return
        try:
            send(replies, *server.answer(request, arrays))
        except Exception as error:
            send(replies, {"error": f"{type(error).__name__}: {error}"}, {})


if __name__ == "__main__":
    serve()
