"""Weights in fewer bits: how large artifacts are, and how fast, beside float32 and ONNX Runtime.

    python bench/weight_only.py [SHAPE | MODEL.onnx ...] [--threads 1] [--forms w8,w4] [--calls N]

SHAPE is rows x sum x columns of one product, as 1x4096x4096. Times are by the protocol of `edgec
bench`, each model's first input random; the ratio is over edgec's float32. ONNX Runtime runs its
MatMulNBits (products only; 4 bits in groups of 32) with float32 activations, and with int8
activations at accuracy level 4, which is less exact.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from weightforms import FORMS, matmul_nbits, weight_only

from edgec import protocol
from edgec.compiler import Options, compile_model
from edgec.peers import EngineProcess
from edgec.report import duration, size, table

SHAPES = ("1x1024x4096", "1x4096x4096", "8x4096x4096", "128x1024x4096")


def product(shape: str) -> onnx.ModelProto:
    """One product with constant weights."""
    rows, inner, columns = map(int, shape.split("x"))
    values = np.random.default_rng(0).standard_normal((inner, columns)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (rows, inner))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (rows, columns))],
        [numpy_helper.from_array(values / np.float32(np.sqrt(inner)), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def sample_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Random inputs; dimensions that the model leaves open are 1."""
    known = {t.name for t in model.graph.initializer}
    random, sample = np.random.default_rng(1), {}
    for tensor in (t for t in model.graph.input if t.name not in known):
        shape = [d.dim_value or 1 for d in tensor.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type)
        sample[tensor.name] = random.standard_normal(shape).astype(dtype)
    return sample


def measured(model: onnx.ModelProto, forms: list[str], threads: int, calls: int) -> list[list[str]]:
    """A row for each form: name, bytes of weights, median time, ratio over edgec's float32."""
    sample = sample_of(model)
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as folder, ExitStack() as stack:
        rows, engines = [], []

        def start(engine: str, path: Path, title: str, nbytes: int) -> None:
            process = stack.enter_context(EngineProcess(engine))
            facts = process.load(path, threads)
            process.bind({name: sample[name] for name in facts["inputs"]})
            process.stop()
            engines.append(process)
            rows.append([title, size(nbytes)])

        for form in ("float32", *forms):
            source = model if form == "float32" else weight_only(model, form)
            path = Path(folder) / f"{form}.edgec"
            result = compile_model(source, path, Options(targets=("host",)))
            start("edgec", path, f"edgec {form}", result.manifest["variants"][0]["weights_bytes"])
        peers = {"float32": model}
        if all(node.op_type == "MatMul" for node in model.graph.node):
            peers["MatMulNBits"] = matmul_nbits(model)
            peers["MatMulNBits, int8"] = matmul_nbits(model, 4)
        for name, each in peers.items():
            path = Path(folder) / f"{name}.onnx"
            onnx.save(each, path)
            start("onnxruntime", path, f"onnxruntime {name}", path.stat().st_size)
        times = protocol.alternate(engines, calls)
    for row, time in zip(rows, times, strict=True):
        ratio = protocol.Ratio.of(time, times[0])
        row += [duration(time.median), f"{ratio.value:.2f} ({ratio.p10:.2f} .. {ratio.p90:.2f})"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=SHAPES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--calls", type=int, default=protocol.CALLS)
    options = parser.parse_args()
    for name in options.models:
        model = onnx.load(name) if name.endswith(".onnx") else product(name)
        rows = measured(model, options.forms.split(","), options.threads, options.calls)
        print(f"\n{Path(name).stem}, {options.threads} threads\n")
        print(table(["", "weights", "median", "ratio"], rows))


if __name__ == "__main__":
    main()
