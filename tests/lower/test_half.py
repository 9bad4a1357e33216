"""float16 to float32, on processors with and without an instruction for it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.lower.kernels import generate, lower
from edgec.runtime.load import load
from edgec.targets.cpu import schedule

from .many_nodes import EXTREMES
from .test_packed_matmul import lowered, product_of


def test_every_number_is_widened_exactly(tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> '
        "g (float16[65536] x) => (float[65536] y) { y = Cast <to = 1> (x) }"
    )
    every = np.arange(1 << 16).astype(np.uint16).view(np.float16)
    compiled = compile_model(model, tmp_path / "m.edgec", Options(targets=EXTREMES))
    expected = every.astype(np.float32)
    finite = np.isfinite(expected)
    variants = [variant["id"] for variant in compiled.manifest["variants"]]
    assert len(variants) == len(EXTREMES)
    for variant in variants:
        with load(compiled.path, variant=variant) as module:
            made = module.run({"x": every})["y"]
        np.testing.assert_array_equal(made, expected)
        bits = made[finite].view(np.uint32)
        np.testing.assert_array_equal(bits, expected[finite].view(np.uint32))


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "aarch64", "armv7"])
def test_no_function_is_called(name: str) -> None:
    target = targets.resolve(name)
    (function,) = lowered(product_of("float16", 1, 256, 96).model(), target).kernels.values()
    module = lower(schedule(function, target, strict=True), "kernel", target, None)
    text = generate(module, target).inspect_source("asm")
    assert not re.search(r"(call|bl)\w*\s+\S*(extendhf|h2f)", text)
