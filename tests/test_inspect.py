"""The card of a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import parse

from edgec.errors import ModelError
from edgec.graph import load
from edgec.inspect import describe, render

SHARED = Path(__file__).parents[1].parent / "shared" / "models"


def constant(model: onnx.ModelProto, name: str, shape: list[int]) -> None:
    values = np.ones(shape, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))


MACS = [
    # [1,2,5,5] from kernels of 3x3 over 4 channels
    ("Conv(x, w)", [1, 4, 7, 7], [2, 4, 3, 3], [1, 2, 5, 5], 50 * 4 * 9),
    ("Conv <group = 4> (x, w)", [1, 4, 7, 7], [4, 1, 3, 3], [1, 4, 5, 5], 100 * 9),
    ("ConvTranspose(x, w)", [1, 4, 2, 2], [4, 3, 2, 2], [1, 3, 3, 3], 16 * 3 * 4),
    ("MatMul(x, w)", [5, 2, 3], [3, 4], [5, 2, 4], 40 * 3),
    ("MatMul(x, w)", [3], [3, 4], [4], 4 * 3),
    ("Gemm(x, w)", [2, 3], [3, 4], [2, 4], 8 * 3),
    ("Gemm <transA = 1> (x, w)", [3, 2], [3, 4], [2, 4], 8 * 3),
    ("Add(x, w)", [3, 2], [3, 2], [3, 2], 0),
]


@pytest.mark.parametrize(("body", "x", "w", "y", "expected"), MACS, ids=lambda v: str(v))
def test_macs(body: str, x: list[int], w: list[int], y: list[int], expected: int) -> None:
    shape = [",".join(map(str, s)) for s in (x, w, y)]
    model = parse(
        f"g (float[{shape[0]}] x, float[{shape[1]}] w) => (float[{shape[2]}] y) {{ y = {body} }}"
    )
    assert describe(model)["macs"] == expected


@pytest.mark.parametrize(
    ("query", "key", "value", "result", "heads", "expected"),
    [
        # 3 heads of width 8, values of 5: 6 queries of each meet 7 keys.
        ("2,3,6,8", "2,3,7,8", "2,3,7,5", "2,3,6,5", "", 2 * 3 * 6 * 7 * (8 + 5)),
        ("2,6,24", "2,7,8", "2,7,5", "2,6,15", "<q_num_heads = 3, kv_num_heads = 1>", 252 * 13),
    ],
    ids=["by heads", "side by side"],
)
def test_macs_of_attention(
    query: str, key: str, value: str, result: str, heads: str, expected: int
) -> None:
    model = parse(f"""g (float[{query}] q, float[{key}] k, float[{value}] v) => (float[{result}] y)
        {{ y = Attention {heads} (q, k, v) }}""")
    model.opset_import[0].version = 23
    assert describe(model)["macs"] == expected


def test_macs_of_a_recurrent_layer() -> None:
    model = parse("""g (float[5,2,3] x, float[1,16,3] w, float[1,16,4] r) => (float[1,2,4] h)
        { y, h = LSTM <hidden_size = 4> (x, w, r) }""")
    assert describe(model)["macs"] == 5 * 2 * (16 * 3 + 16 * 4)


def test_peak_of_activations() -> None:
    # x and a, then a, b and c: the 400 bytes of a live until c is made.
    model = parse("""g (float[100] x) => (float[100] c) {
        a = Relu(x)
        b = Exp(a)
        c = Add(a, b)
    }""")
    assert describe(model)["peak_activation_bytes"] == 3 * 400


def test_the_card() -> None:
    model = parse("g (float[N,8] x) => (float[N,8] y) { h = MatMul(x, w)\n y = Relu(h) }")
    constant(model, "w", [8, 8])
    model.producer_name = "me"
    onnx.helper.set_model_props(model, {"labels": "a\x1b[31mb"})
    card = describe(model)
    assert json.loads(json.dumps(card)) == card
    assert card["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 8]}]
    assert card["ops"] == {"MatMul": 1, "Relu": 1}
    assert (card["parameters"], card["weight_bytes"], card["macs"]) == (64, 256, 64)
    assert card["metadata"] == {"labels": "a\x1b[31mb"}
    text = render(card)
    assert "\x1b" not in text
    assert "x float32 1x8" in text
    assert "batch dimension 'N' of x set to 1" in text


def test_unknown_shapes_are_no_error() -> None:
    model = parse("g (float[2,N,T] x, float[2,T,M] w) => (float[2,N,M] y) { y = MatMul(x, w) }")
    card = describe(model)
    assert card["macs"] is None
    assert card["peak_activation_bytes"] is None
    assert card["inputs"][0]["shape"] == [2, "N", "T"]
    assert "unknown" in render(card)
    assert describe(model, dims={"N": 2, "T": 3, "M": 4})["macs"] == 2 * 2 * 4 * 3


def test_a_graph_in_hand() -> None:
    graph = load(parse("g (float[2] x) => (float[2] y) { y = Relu(x) }"))
    assert describe(graph)["nodes"] == 1


def test_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError):
        describe(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("mlperf_tiny_ic_resnet8_fp32", 12_501_632, 77_708),
        ("mlperf_tiny_ad_autoencoder_fp32", 264_192, 265_864),
    ],
)
def test_known_models(name: str, macs: int, parameters: int) -> None:
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    card = describe(path)
    assert (card["macs"], card["parameters"]) == (macs, parameters)
