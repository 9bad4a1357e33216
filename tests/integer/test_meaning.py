"""What a compiled quantized model is compared with."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgec.program import Tensor
from edgec.qdq.meaning import meaning_of

ROOT = Path(__file__).parents[2]
KWS = ROOT.parent / "shared/models/mlperf_tiny_kws_int8_qdq.onnx"


@pytest.mark.skipif(not KWS.is_file(), reason="shared/models is absent")
def test_a_quantized_model_means_its_integer_operators() -> None:
    meaning = meaning_of(KWS, [Tensor("input_1", "int8", (1, 49, 10, 1))])
    assert isinstance(meaning, onnx.ModelProto)
    operators = [node.op_type for node in meaning.graph.node]
    assert operators.count("ConvInteger") == 9
    assert "Conv" not in operators


def test_a_float_model_means_itself() -> None:
    model = ROOT / "models/digits_cnn.onnx"
    assert meaning_of(model, []) is model
