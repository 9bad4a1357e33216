"""Transposed copies: in tiles where whole ones are to be had, right everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower.lowering import lower_graph
from edgec.targets.cpu import schedule

from .many_nodes import RUNNABLE

IN_TILES = {
    "matrix": ("float[48, 80] x", "float[80, 48] y", "y = Transpose(x)"),
    "heads": (
        "float[1, 32, 96] x",
        "float[1, 3, 32, 32] y",
        "s = Constant<value_ints=[1, 32, 3, 32]>() r = Reshape(x, s) "
        "y = Transpose<perm = [0, 2, 3, 1]>(r)",
    ),
    "image": ("float[1, 12, 8, 16] x", "float[1, 16, 12, 8] y", "y = Transpose<perm=[0,3,1,2]>(x)"),
    "bytes": ("uint8[16, 2, 32] x", "uint8[32, 2, 16] y", "y = Transpose<perm = [2, 1, 0]>(x)"),
    "tail": ("float[32, 16] x", "float[16, 32] y", "t = Transpose(x) y = Relu(t)"),
}
PLAIN = {
    "odd": ("float[17, 80] x", "float[80, 17] y", "y = Transpose(x)"),
    "rows": ("float[4, 8, 16] x", "float[8, 4, 16] y", "y = Transpose<perm = [1, 0, 2]>(x)"),
    "reversed": (
        "float[16, 16] x",
        "float[16, 16] y",
        "s = Constant<value_ints=[-1]>() e = Constant<value_ints=[-99]>() "
        "a = Constant<value_ints=[1]>() y = Slice(x, s, e, a, s)",
    ),
    "two": ("float[16, 16] x", "float[16, 16] y", "t = Transpose(x) y = Add(x, t)"),
}


def model(**cases: tuple[str, str, str]) -> onnx.ModelProto:
    """All the cases in one model; what has one letter is a tensor."""
    named = [
        [re.sub(r"\b([a-z])\b", rf"\1_{name}", text) for text in case]
        for name, case in cases.items()
    ]
    inputs, outputs = (", ".join(case[part] for case in named) for part in (0, 1))
    body = " ".join(case[2] for case in named)
    text = f"g ({inputs}) => ({outputs}) {{ {body} }}"
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')


def test_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    levels = tuple(name for name in RUNNABLE if name != "host")
    options = Options(targets=levels)
    result = compile_model(model(**IN_TILES, **PLAIN), tmp_path / "m.edgec", options)
    verified = [variant["verified"] for variant in result.manifest["variants"]]
    assert verified == ["device"] * len(levels)


@pytest.mark.parametrize(("name", "case"), (IN_TILES | PLAIN).items())
def test_tiles_are_taken_where_whole_ones_are(name: str, case: tuple[str, str, str]) -> None:
    target = targets.resolve("x86-64-v3")
    (function,) = lower_graph(load(model(case=case)), "m", [], target).kernels.values()
    text = schedule(function, target, strict=True).script()
    assert ("T.unroll" in text) == (name in IN_TILES)
