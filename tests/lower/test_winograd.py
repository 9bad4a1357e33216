"""Winograd's filtering: its matrices, where it is chosen, what it computes, how it is given up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower import winograd
from edgec.lower.lowering import lower_graph

RUNNABLE = [
    name for name in ("x86-64-v2", "x86-64-v3", "host") if targets.runs_here(targets.resolve(name))
]


@pytest.mark.parametrize("size", winograd.POINTS)
def test_the_matrices_compute_a_convolution(size: int) -> None:
    random = np.random.default_rng(size)
    image, taps = random.normal(size=(size + 2, size + 2)), random.normal(size=(3, 3))
    output, kernel, spread = winograd.matrices(size)
    tile = output @ ((kernel @ taps @ kernel.T) * (spread @ image @ spread.T)) @ output.T
    plain = [[(image[i : i + 3, j : j + 3] * taps).sum() for j in range(size)] for i in range(size)]
    np.testing.assert_allclose(tile, plain, rtol=0, atol=1e-12)


def test_the_larger_tiles_need_an_image_that_fills_them() -> None:
    assert winograd.best_size(4, 64, 64, (56, 56), 16) == 4
    assert winograd.best_size(2, 64, 64, (56, 56), 16) == 2
    assert winograd.best_size(0, 64, 64, (56, 56), 16) == 0
    assert winograd.best_size(4, 256, 256, (14, 14), 16) == 2
    assert winograd.best_size(4, 512, 512, (7, 7), 16) == 0
    assert winograd.best_size(4, 512, 512, (7, 7), 8) == 2


def network(random: np.random.Generator) -> onnx.ModelProto:
    """Convolutions of images h[2, 32, H, W] for which tiles of 4 or of 2 are chosen."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    outputs: list[str] = []

    def conv(x: str, out: int, depth: int, *, bias: bool = True, pads: list[int]) -> str:
        name = f"c{len(nodes)}"
        taps = random.normal(0, 1 / np.sqrt(9 * depth), (out, depth, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(taps, f"w_{name}"))
        inputs = [x, f"w_{name}"]
        if bias:
            values = random.normal(size=out).astype(np.float32)
            weights.append(numpy_helper.from_array(values, f"b_{name}"))
            inputs.append(f"b_{name}")
        nodes.append(helper.make_node("Conv", inputs, [name], pads=pads))
        return name

    same = [1, 1, 1, 1]
    for image in ("even", "odd"):
        first = conv(image, 32, 32, pads=same)
        nodes.append(helper.make_node("Relu", [first], [f"r_{image}"]))
        second = conv(f"r_{image}", 32, 32, pads=same)
        nodes.append(helper.make_node("Add", [second, f"r_{image}"], [f"s_{image}"]))
        nodes.append(helper.make_node("Relu", [f"s_{image}"], [f"t_{image}"]))
        outputs.append(conv(f"t_{image}", 24, 32, bias=False, pads=[0, 2, 1, 0]))
        outputs.append(conv(f"t_{image}", 16, 32, pads=[0, 0, 0, 0]))
    shapes = {"even": [2, 32, 16, 32], "odd": [1, 32, 13, 29]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        weights,
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize("target", RUNNABLE)
def test_agrees_with_onnx_runtime(target: str, tmp_path: Path) -> None:
    """compile_model compares every output, at the tolerance of any other kernel."""
    model = network(np.random.default_rng(3))
    notes: list[str] = []
    options = Options(targets=(target,), level=3)
    result = compile_model(
        model, tmp_path / "m.edgec", options, on_event=lambda e: notes.append(str(e.get("text")))
    )
    assert [variant["verified"] for variant in result.manifest["variants"]] == ["device"]
    (note,) = [note for note in notes if "Winograd" in note]
    assert note.startswith("6 convolutions by Winograd tiles of at most 4")


def test_every_stage_is_scheduled() -> None:
    """A rule that TVM refuses halfway is passed over, so ask for its error."""
    from edgec.targets.cpu import schedule

    target = targets.resolve("x86-64-v3")
    lowered = lower_graph(load(network(np.random.default_rng(3))), "m", [], target, 4)
    kernels = [kernel for name, kernel in lowered.kernels.items() if "winograd" in name]
    assert len(kernels) >= 4
    for kernel in kernels:
        text = schedule(kernel, target, strict=True).script()
        assert text.count("T.vectorized") >= 6
        assert 'T.sblock("winograd_products_update")' in text


def test_too_inaccurate_tiles_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = winograd.matrices

    def off(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        output, kernel, image = exact(size)
        return output * (1.01 if size == 4 else 1), kernel, image

    monkeypatch.setattr(winograd, "matrices", off)
    notes: list[str] = []
    compile_model(
        network(np.random.default_rng(3)),
        tmp_path / "m.edgec",
        Options(level=3),
        reuse=False,
        on_event=lambda e: notes.append(str(e.get("text"))),
    )
    told = [note for note in notes if "Winograd" in note]
    assert told[0].startswith("Winograd tiles of 4 are too inaccurate")
    assert told[1].startswith("5 convolutions by Winograd tiles of at most 2")
    assert not (tmp_path / "m.mismatch").exists()
