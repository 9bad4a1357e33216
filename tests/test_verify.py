"""Verification against ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import model_of
from numpy.typing import NDArray

from edgec.arrays import load_npz
from edgec.compare import TensorReport
from edgec.errors import ModelError, VerifyError
from edgec.peers import EngineError
from edgec.program import Tensor
from edgec.reference import Reference, reference
from edgec.verify import Mismatch, VerifyReport, verify

SHARED = Path(__file__).parents[1].parent / "shared" / "models"


class Module:
    """Runs a model by ONNX Runtime, then lets a test spoil the outputs."""

    def __init__(
        self, model: onnx.ModelProto, spoil: Callable[[dict[str, NDArray]], object] = lambda o: None
    ) -> None:
        self._model, self._spoil = model, spoil

    def run(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        outputs = {k: v.copy() for k, v in reference(self._model, inputs).items()}
        self._spoil(outputs)
        return outputs


MATMUL = """(float[1,8] x) => (float[1,2] y, int64[1,1] i)
    { s = Sin (x)  a, b = Split <axis = 1, num_outputs = 2> (s)  p = Mul (a, b)
      ax = Constant <value_ints = [1]> ()  q = ReduceSum (p, ax)
      y = Concat <axis = 1> (q, q)  i = ArgMax <axis = 1> (p) }"""


def test_verify_passes_and_counts_its_samples() -> None:
    model = model_of(MATMUL)
    heard: list[str] = []
    given = [{"x": np.ones((1, 8), np.float32)}]
    report = verify(Module(model), model, given=given, on_sample=heard.append)
    assert heard == ["random 0", "random 1", "zeros", "given 0"]
    assert report.ok
    assert report.samples == 4
    assert [(t.name, t.values) for t in report.tensors] == [("y", 8), ("i", 4)]
    assert "ok" in report.table()
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["ok"]


def test_a_mismatch_keeps_the_evidence(tmp_path: Path) -> None:
    model = model_of(MATMUL)

    def spoil(outputs: dict[str, NDArray]) -> None:
        outputs["y"][0, 1] += 0.25

    folder = tmp_path / "m.mismatch"
    with pytest.raises(Mismatch, match="'y': 3 of 6 values are wrong") as caught:
        verify(Module(model, spoil), model, evidence=folder)
    assert caught.value.exit_code == 7
    assert str(folder) in caught.value.hint
    assert caught.value.report.evidence == folder
    assert [t.ok for t in caught.value.report.tensors] == [False, True]
    inputs, expected, actual = (
        load_npz(folder / f"{name}.npz") for name in ("inputs", "expected", "actual")
    )
    assert np.array_equal(reference(model, inputs)["y"], expected["y"])
    assert actual["y"][0, 1] == expected["y"][0, 1] + np.float32(0.25)
    assert "the worst at [0, 1]" in (folder / "report.txt").read_text()


def test_evidence_that_cannot_be_kept_does_not_hide_the_mismatch(tmp_path: Path) -> None:
    model = model_of(MATMUL)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Mismatch) as caught:
        verify(Module(model, lambda o: o.pop("i")), model, evidence=tmp_path / "file" / "m")
    assert caught.value.hint.startswith("its data could not be kept")
    assert caught.value.report.evidence is None


def test_without_a_folder_nothing_is_written() -> None:
    model = model_of(MATMUL)
    with pytest.raises(Mismatch) as caught:
        verify(Module(model, lambda outputs: outputs.pop("i")), model)
    assert caught.value.hint == ""
    assert "'i': missing" in caught.value.what


def test_state_is_fed_to_the_reference() -> None:
    model = model_of(
        "(float[1,3] x, float[1,3] h) => (float[1,3] y, float[1,3] hn)"
        " { hn = Add (x, h)  y = Mul (hn, hn) }"
    )

    class Accumulates:
        total = np.zeros((1, 3), np.float32)

        def run(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
            self.total = self.total + inputs["x"]
            return {"y": self.total * self.total}

    x, h = Tensor("x", "float32", (1, 3)), Tensor("h", "float32", (1, 3))
    given = [{"x": np.ones((1, 3), np.float32)}]
    assert verify(Accumulates(), model, specs=[x], states=[(h, "hn")], given=given).ok

    class Forgets:
        def run(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
            return {"y": inputs["x"] * inputs["x"]}

    with pytest.raises(Mismatch):
        verify(Forgets(), model, specs=[x], states=[(h, "hn")], given=given)


CRASHES = """(int64[1] x) => (int64[1] y)
    { m = Constant <value_ints = [-9223372036854775808]> ()  y = Div (m, x) }"""


def test_a_sample_that_kills_onnx_runtime_is_skipped_and_said() -> None:
    model = model_of(CRASHES)
    with Reference(model) as oracle:
        with pytest.raises(EngineError, match="SIGFPE"):
            oracle.run({"x": np.int64([-1])})
        assert oracle.run({"x": np.int64([1])})[0]["y"] == np.iinfo(np.int64).min
    given = [{"x": np.int64([1])}, {"x": np.int64([-1])}]
    report = verify(Module(model), model, given=given)
    assert report.ok
    assert "zeros" in report.warnings[-2]
    assert "given 1: the process died (SIGFPE)" in report.warnings[-1]


def test_no_sample_at_all_is_an_error() -> None:
    model = model_of("(float[2] x) => (float[2] y) { y = Nonsense (x) }")
    with pytest.raises(VerifyError, match="cannot load"):
        verify(Module(model), model)
    assert not VerifyReport().ok


def test_models_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 99)
    with pytest.raises(ModelError, match="not an ONNX model"):
        reference(tmp_path / "m.onnx", {})
    with pytest.raises(ModelError, match="cannot be read"):
        reference(tmp_path / "absent.onnx", {})


def test_symbolic_shapes_need_specs() -> None:
    model = model_of("(float[N,2] x) => (float[N,2] y) { y = Neg (x) }")
    with pytest.raises(ModelError, match="not static"):
        verify(Module(model), model)
    assert verify(Module(model), model, specs=[Tensor("x", "float32", (3, 2))]).ok


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Tensor("x", "int8", (2,)), "'x': int8 in the module, float32 in the model"),
        (Tensor("z", "float32", (2,)), "absent in the m"),
    ],
)
def test_inputs_of_another_model(spec: Tensor, message: str) -> None:
    model = model_of("(float[2] x) => (float[2] y) { y = Neg (x) }")
    with pytest.raises(VerifyError) as caught:
        verify(Module(model), model, specs=[spec])
    assert message in str(caught.value)


def test_a_reference_that_fails_on_every_sample_is_an_error() -> None:
    model = model_of("""(int64[1] x) => (float[n] y)
        { z = Constant <value_floats = [1.0, 2.0]> ()  five = Constant <value_ints = [5]> ()
          s = Add (x, five)  y = Reshape (z, s) }""")
    with pytest.raises(VerifyError, match="can run no sample: random 0"):
        verify(Module(model), model)


@pytest.mark.parametrize("name", ["mlperf_tiny_kws_fp32", "mlperf_tiny_kws_int8_qdq"])
def test_onnx_runtime_agrees_with_itself_on_a_real_model(name: str) -> None:
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    dtype = "int8" if "int8" in name else "float32"
    with Reference(path) as oracle:

        class Optimised:
            def run(self, inputs: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
                outputs = oracle.baseline(inputs)
                assert outputs is not None
                return outputs

        specs = [Tensor("input_1", dtype, (1, 49, 10, 1))]
        report = verify(Optimised(), path, specs=specs)
    tensor: TensorReport = report.tensors[0]
    assert report.ok
    assert tensor.ort_error is None or tensor.error == tensor.ort_error


WHOLE = "(int16[3] x, int16[3] z) => (int16[3] y) { y = Max(x, z) }"
"""ONNX Runtime has no kernel for this type."""


def test_onnx_stands_in_for_onnx_runtime(edgec: Callable[..., Any], tmp_path: Path) -> None:
    model = model_of(WHOLE)
    with pytest.raises(VerifyError, match="ONNX Runtime cannot load the model"):
        Reference(model)
    inputs = {"x": np.int16([1, -5, 7]), "z": np.int16([2, -9, 7])}
    with Reference(model, or_onnx=True) as oracle:
        assert oracle.run(inputs)[0]["y"].tolist() == [2, -5, 7]
        assert oracle.baseline(inputs) is None
    path = tmp_path / "whole.onnx"
    onnx.save(model, path)
    done = edgec("compile", path, "-o", tmp_path / "whole.edgec")
    assert done.code == 0
    assert "warning: checked against onnx's reference" in done.err


def test_no_engine_can_load_it() -> None:
    model = model_of(WHOLE)
    model.graph.node[0].domain = "nobody.knows"
    with pytest.raises(VerifyError, match="ONNX Runtime cannot load the model"):
        Reference(model, or_onnx=True)
