"""Artifacts for boards with a GPU: what is in them, and what of it was proved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import Edgec

from edgec import load, targets
from edgec.compiler import compile_model
from edgec.emit.cuda_cubin import architecture
from edgec.emit.cuda_nvrtc import nvrtc
from edgec.errors import DataError, TargetError
from edgec.options import Options

from .conftest import ROOT, OnTwin

MODELS = ROOT / "models"

MOST_REGISTERS = 255
MOST_SHARED_BYTES = 48 << 10


def check_functions(gpu: dict[str, Any]) -> None:
    """No function spills, or takes more than an architecture has without being asked."""
    assert gpu["functions"]
    for name, facts in gpu["functions"].items():
        assert facts["frame_bytes"] == 0, name
        assert 0 < facts["registers"] <= MOST_REGISTERS, name
        assert facts["shared_bytes"] <= MOST_SHARED_BYTES, name


def test_orin_gets_both_processors(tmp_path: Path) -> None:
    artifact = tmp_path / "digits.edgec"
    options = Options(targets=("jetson",))
    [variant] = compile_model(MODELS / "digits_cnn.onnx", artifact, options).manifest["variants"]
    assert variant["requires"]["arch"] == "aarch64"
    assert variant["verified"] == "host-twin"
    gpu = variant["gpu"]
    assert (gpu["arch"], gpu["driver"], gpu["ptx"]) == ("sm_87", "12.6", "8.5")
    assert gpu["toolkit"] == 12060
    assert set(gpu["launches"]) == {kernel["name"] for kernel in variant["kernels"]}
    check_functions(gpu)


def test_code_is_for_the_architecture_that_was_named(on_twin: OnTwin) -> None:
    assert {architecture(kernel.cubin) for kernel in on_twin.kernels.values()} == {80}
    check_functions(on_twin.variant["gpu"])
    assert on_twin.variant["verified"] == "host-twin"


def test_without_a_driver_the_processor_runs_it(
    on_twin: OnTwin, image: np.ndarray[Any, Any]
) -> None:
    with load(on_twin.artifact) as module:
        assert module.device.startswith("CPU: ")
        assert "libcuda.so.1" in module.device
        assert module.run({"image": image})["logits"].shape == (1, 10)
    with load(on_twin.artifact, device=-1) as module:
        assert module.device == "CPU"
        logits = np.zeros((1, 10), np.float32)
        module.run_at([image.ctypes.data], [logits.ctypes.data])
        np.testing.assert_array_equal(logits, module.run({"image": image})["logits"])
        with pytest.raises(DataError, match="0 inputs and 1 outputs given"):
            module.run_at([], [logits.ctypes.data])


def test_cuda_is_an_alias_and_names_are_suggested(edgec: Edgec) -> None:
    assert targets.resolve("cuda").gpu_arch == "sm_80"
    assert targets.resolve("cuda-sm_87").name == "jetson-orin-nano"
    done = edgec("compile", "model.onnx", "--target", "cuda-sm_88")
    assert done.code == 4
    assert "cuda-sm_8" in done.err


def test_loops_that_nothing_can_share_run_as_one_thread(tmp_path: Path) -> None:
    """NonMaxSuppression: loops without blocks, with memory of their own."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 17]>
    boxes (float[1, 9, 4] box, float[1, 2, 9] score) => (int64[n, 3] chosen)
        <int64 most = {4}, float overlap = {0.3}, float least = {0.1}> {
        chosen = NonMaxSuppression (box, score, most, overlap, least)
    }""")
    result = compile_model(model, tmp_path / "m.edgec", Options(targets=("cuda",)))
    [variant] = result.manifest["variants"]
    assert variant["verified"] == "host-twin"
    assert len(variant["gpu"]["functions"]) == 1


def test_rows_of_any_rank_and_length(tmp_path: Path) -> None:
    """Softmax and LayerNormalization of rows that are one dimension, two, short and single."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]> rows
        (float[300, 64] a, float[3, 70, 10] b, float[7, 1] c, float[33, 5, 6] d, float[5, 6] scale)
        => (float[300, 64] w, float[3, 70, 10] x, float[7, 1] y, float[33, 5, 6] z) {
        w = Softmax (a)
        x = Softmax (b)
        y = Softmax (c)
        z = LayerNormalization <axis = 1> (d, scale)
    }""")
    result = compile_model(model, tmp_path / "m.edgec", Options(targets=("cuda",)))
    [variant] = result.manifest["variants"]
    assert variant["verified"] == "host-twin"
    check_functions(variant["gpu"])


def test_a_single_sum_is_written_by_one_thread(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> single
        (float[1, 7] x) => (float[1] mean, float[1, 1] most) {
        mean = ReduceMean <axes = [1], keepdims = 0> (x)
        most = ReduceMax <axes = [1]> (x)
    }""")
    result = compile_model(model, tmp_path / "m.edgec", Options(targets=("cuda",)))
    [variant] = result.manifest["variants"]
    assert variant["verified"] == "host-twin"


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name",
    [
        "autoencoder",
        "bert_tiny",
        "ds_cnn",
        "encoder",
        "gru_keyword",
        "lstm_keyword",
        "mobilenet_v1",
        "mobilenet_v2",
        "resnet8",
        "resnet18",
        "squeezenet",
        "unet",
    ],
)
def test_whole_models_on_the_twin(name: str, tmp_path: Path) -> None:
    """Compiling proves a model against ONNX Runtime, and raises where it differs."""
    path = MODELS / "cache" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"build it first: models/build.py {name}")
    result = compile_model(path, tmp_path / "m.edgec", Options(targets=("cuda",)))
    [variant] = result.manifest["variants"]
    assert variant["verified"] == "host-twin"
    check_functions(variant["gpu"])


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["jetson-xavier", "jetson", "jetson-thor", "cuda-sm_90"])
def test_integers_for_each_driver(target: str, tmp_path: Path) -> None:
    """A public int8 model, whose tensors are called as in TensorFlow."""
    path = ROOT.parent / "shared" / "models" / "mlperf_tiny_kws_int8_qdq.onnx"
    if not path.exists():
        pytest.skip("needs the public models")
    try:
        nvrtc(targets.resolve(target).cuda)
    except TargetError as error:
        pytest.skip(error.what)
    result = compile_model(path, tmp_path / "m.edgec", Options(targets=(target,)))
    [variant] = result.manifest["variants"]
    assert variant["verified"] == "host-twin"
    check_functions(variant["gpu"])
