"""Concatenations and slices that move nothing: where parts lie, and what has to be copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower.lowering import lower_graph
from edgec.program import Program, Repeat, calls_in


def info(name: str, shape: list[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(
    nodes: list[tuple[str, str, str]], outputs: list[str], attrs: dict[str, Any] | None = None
) -> onnx.ModelProto:
    """Nodes (operator, inputs, outputs) on x[1, 32, 4, 4] and `w`, taps of a convolution 32 to 32.

    `attrs` has the attributes of nodes by their first output; Concat is along axis 1."""
    made = []
    for op, reads, writes in nodes:
        own = (attrs or {}).get(writes.split()[0], {"axis": 1} if op == "Concat" else {})
        made.append(helper.make_node(op, reads.split(), writes.split(), **own))
    taps = np.random.default_rng(5).normal(size=(32, 32, 1, 1)).astype(np.float32)
    constants = {
        "w": taps,
        "flat": np.array([1, 32, 16]),
        "one": np.array([1]),
        "start": np.array([16]),
        "stop": np.array([32]),
        "halves": np.array([16, 16]),
    }
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(
        made, "g", [info("x", [1, 32, 4, 4])], [info(name) for name in outputs], weights
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def program_of(proto: onnx.ModelProto) -> Program:
    return lower_graph(load(proto), "m", [], targets.resolve("x86-64-v3")).program


TWO = [("Conv", "x w", "a"), ("Sigmoid", "x", "s"), ("Conv", "s w", "b")]
CASES = {
    "parts are written in place": ([*TWO, ("Concat", "a b", "y")], ["y"], 0),
    "a part with another reader": (
        [*TWO, ("Concat", "a b", "c"), ("Add", "a b", "d"), ("Concat", "c d", "y")],
        ["y"],
        0,
    ),
    "a part twice": ([*TWO, ("Concat", "a b a", "y")], ["y"], 1),
    "a part of two": ([*TWO, ("Concat", "a b", "y"), ("Concat", "b a", "z")], ["y", "z"], 2),
    "outputs": (
        [("Sin", "x", "a"), ("Cos", "x", "b"), ("Concat", "a b", "y")],
        ["y", "a"],
        1,
    ),
    "an input": (
        [("Reshape", "x flat", "a"), ("Sin", "a", "b"), ("Concat", "b a", "y")],
        ["y"],
        1,
    ),
    "slices": (
        [
            ("Sin", "x", "a"),
            ("Split", "a halves", "p q"),
            ("Slice", "x start stop one", "r"),
            ("Cos", "q", "s"),
            ("Mul", "s r", "y"),
        ],
        ["p", "y"],
        1,
    ),
    "what grows": (
        [
            *TWO,
            ("Concat", "a b", "c"),
            ("Conv", "b w", "d"),
            ("Concat", "a b d", "e"),
            ("Conv", "d w", "f"),
            ("Concat", "a b d f", "g"),
            ("Concat", "b d", "h"),
            ("Relu", "c", "y"),
            ("Relu", "e", "z"),
            ("Relu", "g", "u"),
            ("Relu", "h", "v"),
        ],
        ["y", "z", "u", "v"],
        0,
    ),
    "what is put together again": (
        [
            ("Sin", "x", "a"),
            ("Split", "a halves", "p q"),
            ("Concat", "p q", "b"),
            ("Cos", "b", "c"),
            ("Sin", "q", "d"),
            ("Concat", "p q d", "e"),
            ("Concat", "q p", "f"),
            ("Cos", "e", "y"),
            ("Cos", "f", "z"),
        ],
        ["c", "y", "z"],
        2,
    ),
    "a slice of what is joined, joined again": (
        [
            ("Sin", "x", "a"),
            ("Cos", "x", "b"),
            ("Concat", "a b", "c"),
            ("Slice", "c start stop one", "d"),
            ("Concat", "d a", "e"),
            ("Mul", "d d", "f"),
            ("Concat", "e f", "y"),
        ],
        ["y"],
        2,
    ),
}
"""Nodes, outputs, and how many copies they take."""
SPLIT = {"p": {"axis": 1}}


@pytest.mark.parametrize(("nodes", "outputs", "copies"), CASES.values(), ids=CASES.keys())
def test_what_is_copied(nodes: list[tuple[str, str, str]], outputs: list[str], copies: int) -> None:
    kernels = [call.kernel for call in program_of(model(nodes, outputs, SPLIT)).calls()]
    assert not any("concat" in kernel or "slice" in kernel for kernel in kernels)
    assert sum(kernel.startswith("copy") for kernel in kernels) == copies


def test_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    """All cases as one model."""
    nodes, outputs, attrs = [], [], {}
    for number, (own, results, _) in enumerate(CASES.values()):
        made = {name for _, _, writes in own for name in writes.split()}

        def named(names: str, made: set[str] = made, number: int = number) -> str:
            return " ".join(f"{n}{number}" if n in made else n for n in names.split())

        nodes += [(op, named(reads), named(writes)) for op, reads, writes in own]
        outputs += map(named, results)
        attrs |= {named(first): value for first, value in SPLIT.items()}
    verify(model(nodes, outputs, attrs), tmp_path)


def verify(proto: onnx.ModelProto, folder: Path) -> None:
    result = compile_model(proto, folder / "m.edgec", Options(targets=("host",), level=0))
    assert [variant["verified"] for variant in result.manifest["variants"]] == ["device"]


@pytest.mark.parametrize(
    ("nodes", "attrs", "kernel"),
    [
        ([*TWO, ("Concat", "a b", "y")], {"y": {"axis": 2}}, "concatenate"),
        ([("Sin", "x", "a"), ("Split", "a halves", "y q")], {"y": {"axis": 3}}, "slice"),
    ],
    ids=["rows side by side", "columns"],
)
def test_what_is_no_piece_of_memory_takes_a_kernel(
    nodes: list[tuple[str, str, str]], attrs: dict[str, Any], kernel: str
) -> None:
    proto = model(nodes, ["y"], attrs)
    if kernel == "slice":
        proto.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.array([1, 3]), "halves"))
    assert any(kernel in call.kernel for call in program_of(proto).calls())


def test_parts_that_are_not_aligned_take_a_kernel() -> None:
    nodes = [("Slice", "x one stop one", "a"), ("Sin", "a", "b"), ("Concat", "b x", "y")]
    proto = model(nodes, ["y"])
    proto.graph.input[0].CopyFrom(info("x", [1, 32, 1, 3]))
    kernels = [call.kernel for call in program_of(proto).calls()]
    assert len(kernels) == 1
    assert "concatenate" in kernels[0]


def test_inside_a_loop(tmp_path: Path) -> None:
    """The body joins what it makes with what it carries, and carries on a slice of that."""
    body = helper.make_graph(
        [
            helper.make_node("Sin", ["h"], ["a"]),
            helper.make_node("Mul", ["s", "h"], ["b"]),
            helper.make_node("Concat", ["a", "b", "h"], ["all"], axis=0),
            helper.make_node("Split", ["all"], ["p", "q", "next"], axis=0, num_outputs=3),
            helper.make_node("Add", ["q", "p"], ["out"]),
            helper.make_node("Add", ["next", "out"], ["following"]),
        ],
        "body",
        [info("h", [16]), info("s", [16])],
        [info("following", [16]), info("all", [48]), info("q", [16])],
    )
    graph = helper.make_graph(
        [
            helper.make_node(
                "Scan", ["first", "x"], ["last", "whole", "parts"], num_scan_inputs=1, body=body
            )
        ],
        "g",
        [info("first", [16]), info("x", [5, 16])],
        [info("last", [16]), info("whole", [5, 48]), info("parts", [5, 16])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    [loop] = [step for step in program_of(proto).steps if isinstance(step, Repeat)]
    kernels = [call.kernel for call in calls_in(loop.body)]
    assert not any("concat" in kernel or "slice" in kernel for kernel in kernels)
    verify(proto, tmp_path)


def test_a_scanned_slice_is_taken_apart_and_put_together_again(tmp_path: Path) -> None:
    """What moves from one run of the body to the next moves for the parts of its parts too."""
    body = helper.make_graph(
        [
            helper.make_node("Split", ["s"], ["p", "q"], axis=0, num_outputs=2),
            helper.make_node("Concat", ["p", "q"], ["r"], axis=0),
            helper.make_node("Sin", ["r"], ["each"]),
        ],
        "body",
        [info("s", [32])],
        [info("each", [32])],
    )
    bounds = [numpy_helper.from_array(np.array([n]), name) for n, name in ((2, "two"), (7, "end"))]
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["x", "two", "end"], ["some"]),
            helper.make_node("Scan", ["some"], ["y"], num_scan_inputs=1, body=body),
        ],
        "g",
        [info("x", [8, 32])],
        [info("y", [5, 32])],
        bounds,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    verify(proto, tmp_path)
