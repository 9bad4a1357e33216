"""What a compiled quantized model is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.graph import load as load_graph
from edgec.passes import TO_INTEGERS
from edgec.program import Tensor
from edgec.qdq import has_integers
from edgec.qdq.meaning import meaning_of
from edgec.reference import reference
from edgec.rewrite import optimize
from edgec.runtime.load import load
from integer.contract import Scaled
from integer.models import Model

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


@pytest.mark.skipif(not KWS.is_file(), reason="shared/models is absent")
def test_a_keyword_model_is_exact_and_all_integers(session_cache: Path, tmp_path: Path) -> None:
    """Against the graph of integers by ONNX Runtime, for random bytes and extreme ones."""
    artifact = tmp_path / "kws.edgec"
    made = compile_model(KWS, artifact, cache=Cache(session_cache))
    (variant,) = made.manifest["variants"]
    assert variant["integers"] == 1.0
    meaning = meaning_of(KWS, [Tensor("input_1", "int8", (1, 49, 10, 1))])
    numbers = np.random.default_rng(5)
    shape = (1, 49, 10, 1)
    samples = [numbers.integers(-128, 128, shape).astype(np.int8) for _ in range(8)]
    samples += [np.full(shape, value, np.int8) for value in (-128, 0, 127)]
    with load(artifact) as module:
        for sample in samples:
            (result,) = module.run({"input_1": sample}).values()
            (expected,) = reference(meaning, {"input_1": sample}).values()
            np.testing.assert_array_equal(result, expected)


def test_a_table_alone_is_of_integers() -> None:
    model = Model((2, 3))
    y = model.through(
        model.node("Sigmoid", model.through("x", Scaled(0.05, 100))), Scaled(0.004, 0)
    )
    graph = load_graph(model.proto(y, (2, 3)))
    assert not has_integers(graph)
    optimize(graph, TO_INTEGERS)
    assert has_integers(graph)
