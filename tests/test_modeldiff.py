"""What `edgec diff` finds changed between two models."""

from __future__ import annotations

from pathlib import Path

from command import Edgec
from graphs import text_model

from edgec.graph import load
from edgec.modeldiff import diff


def test_diff(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    assert edgec("optimize", digits, "-o", out).code == 0
    assert edgec("diff", digits, digits).out == "the models are the same\n"
    text = edgec("diff", digits, out).out
    assert "BatchNormalization       3       0" in text
    assert "- bn1 = BatchNormalization(conv1," in text
    assert "! relu1 = Relu(bn1) is now relu1 = Relu(conv1)" in text
    result = edgec("diff", digits, out, "--json").result
    assert result["same"] is False
    assert result["ops"] == {"BatchNormalization": [3, 0]}
    assert len(result["removed"]) == 3


def test_diff_of_signature_attributes_and_values() -> None:
    before = text_model(
        "g (float[2,3] x) => (float[2,3] y) <float[3] c = {1, 2, 3}>"
        "{ s = Softmax <axis = 0> (x) y = Add(s, c) }"
    )
    after = text_model(
        "g (float[2,3] x, float[2] z) => (float[2,3] y) <float[3] c = {1, 2, 4}>"
        "{ s = Softmax <axis = 1> (x) y = Add(s, c) }"
    )
    after.metadata_props.add(key="k", value="v")
    found = diff(load(before), load(after))
    assert found.signature == ["input absent is now 'z' float32 2"]
    assert found.changed == ["s = Softmax(x) <axis=0> is now s = Softmax(x) <axis=1>"]
    assert found.constants == (1, 1)
    assert found.metadata == {"k": (None, "v")}
    assert not found.removed
    assert not found.added
    assert "constants: 1 gone, 1 new" in found.text()
