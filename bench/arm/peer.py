"""A peer's model, run by the aarch64 Python that QEMU emulates.

    python peer.py ncnn PARAM BIN SHAPE,...      (a shape: 1x3x224x224)
    python peer.py onnxruntime MODEL LIBRARY

After the model is loaded and was run once, marks for the plugin enclose `RUNS` runs. ONNX Runtime
is called from C (`edgec/burst.c`), ncnn by its Python binding, after an empty network was.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile

import numpy as np

RUNS = 2
MARK = 974316
EMPTY = "7767517\n2 2\nInput in0 0 1 in0\nNoop noop 1 1 in0 out0\n"


def mark() -> None:
    """Let the plugin print its counts."""
    with contextlib.suppress(OSError):
        os.getpgid(MARK)


def ncnn(param: str, weights: str, shapes: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".param") as empty:
        empty.write(EMPTY)
        empty.flush()
        _ncnn(empty.name, os.devnull, "1x1x1x1")
    _ncnn(param, weights, shapes)


def _ncnn(param: str, weights: str, shapes: str) -> None:
    import ncnn as library

    net = library.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    assert net.load_param(param) == 0
    net.load_model(weights)
    inputs = []
    for shape in shapes.split(","):
        extents = [int(extent) for extent in shape.split("x")]
        array = np.random.default_rng(0).random(extents[1:] or extents, np.float32)
        inputs.append(library.Mat(array).clone())

    def run() -> None:
        extractor = net.create_extractor()
        for index, mat in enumerate(inputs):
            extractor.input(f"in{index}", mat)
        status, _ = extractor.extract("out0")
        assert status == 0

    mark()
    run()
    mark()
    for _ in range(RUNS):
        run()
    mark()


def onnxruntime(model: str, library: str) -> None:
    import fromc
    import onnxruntime as engine

    options = engine.SessionOptions()
    options.intra_op_num_threads = 1
    session = engine.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = {i.name: _random(i.type, i.shape) for i in session.get_inputs()}
    outputs = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True)
    )
    del session
    run = fromc.onnxruntime(library, model, 1, inputs, outputs)
    mark()
    run(1)
    mark()
    run(RUNS)
    mark()


def _random(kind: str, shape: list[object]) -> np.ndarray:
    extents = [extent if isinstance(extent, int) else 1 for extent in shape]
    if kind == "tensor(float)":
        return np.random.default_rng(0).random(extents, np.float32)
    names = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int8)": np.int8}
    return np.ones(extents, names[kind])


if __name__ == "__main__":
    {"ncnn": ncnn, "onnxruntime": onnxruntime}[sys.argv[1]](*sys.argv[2:])
