"""The opset that an optimised model is written at."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from command import Edgec
from graphs import ops, text_model

import edgec as library
from edgec.errors import ModelError
from edgec.optimizer import Pipeline, optimize_model
from edgec.passproof import PassProof

GELU = """g (float[2,3] x) => (float[2,3] y)
<float r = {1.41421356}, float one = {1}, float half = {0.5}> {
  a = Div(x, r)
  e = Erf(a)
  p = Add(e, one)
  m = Mul(x, p)
  y = Mul(m, half)
}"""
SILU = "g (float[2,3] x) => (float[2,3] y) { s = Sigmoid(x) y = Mul(x, s) }"


@pytest.mark.parametrize(
    ("text", "source", "level", "op", "written"),
    [
        (GELU, 17, 2, "Erf", 17),
        (GELU, 17, 3, "Gelu", 20),
        (GELU, 20, 2, "Gelu", 20),
        (GELU, 22, 3, "Gelu", 22),
        (SILU, 17, 2, "Sigmoid", 17),
        (SILU, 17, 3, "Swish", 24),
        (SILU, 24, 2, "Swish", 24),
        (SILU, 25, 3, "Sigmoid", 25),
    ],
)
def test_only_level_3_takes_a_newer_opset(
    text: str, source: int, level: int, op: str, written: int
) -> None:
    model = text_model(text, source)
    result = optimize_model(model, Pipeline(level=level), verify=PassProof())
    assert op in ops(result.model)
    assert result.model.opset_import[0].version == written
    assert result.after["opset"] == written
    assert not any(report.rolled_back for report in result.passes)


RELU = "g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }"


@pytest.mark.parametrize(
    ("text", "source", "opset", "op"),
    [(GELU, 17, 20, "Gelu"), (GELU, 20, 17, "Erf"), (RELU, 17, 7, "Relu"), (RELU, 17, 26, "Relu")],
)
def test_result_at_another_opset(text: str, source: int, opset: int, op: str) -> None:
    model = library.optimize(text_model(text, source), opset=opset, verify=opset <= 25)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    assert op in ops(model)


def test_opset_on_the_command_line(edgec: Edgec, tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    onnx.save(text_model("g (float[2] x) => (float[2] y) { [grid] y = Gelu(x) }", 20), path)
    done = edgec("optimize", path, "-o", out, "--opset", 24, "--verify", "each")
    assert done.code == 0, done.err
    assert onnx.load(out).opset_import[0].version == 24
    done = edgec("optimize", path, "-o", out, "--opset", 19)
    assert done.code == 3
    assert "opset 19 has no Gelu" in done.err
    assert "node 'grid'" in done.err
    done = edgec("optimize", path, "-o", out, "--opset", 99)
    assert done.code == 2
    assert "there is no opset 99" in done.err


def test_an_operator_without_a_way_to_the_opset_is_named() -> None:
    text = "g (float[1,1,4,4] x, float[1,3,3,2] k) => (float[1,1,3,3] y) { y = GridSample(x, k) }"
    with pytest.raises(ModelError, match="No Adapter") as error:
        library.optimize(text_model(text, 20), opset=17)
    assert error.value.where == "one of GridSample, going from opset 25 to 17"
