"""Runs `<pass>.cases`: models before and after a pass in ONNX's own text, and their numbers.

    [case fuses_a_bias]              a test of the pass the file is named after
    [options] budget=10              optional, options of the pass
    [prepare] eliminate-dead         optional, passes that run first
    [symbolic]                       optional, named dimensions stay unknown; they are run as 2
    g (float[1,3] x) => ...          the model; opset 25 unless a header <...> says else
    [after]                          what must come out, or
    [same]                           nothing changes, silently, or
    [skip] reason                    nothing changes, and this reason is given

A tensor that is declared in `<...>` and made by no node is a constant of random values (positive
where its name starts with "var"). In `[after]` it stands for any constant of that type; one with
values must have exactly those. Each case that changes something is also run: ONNX Runtime without
optimisations must compute the same before and after, within the pass's declared numerics.

Syntax of `onnx.parser`: `float x` is a scalar and `float[] x` of unknown shape, `""` or nothing
between commas is a missing input, a node's name precedes it as `[name]`, attributes come before or
after the inputs as `Op <axis = 0> (x)`, float16 constants cannot be written as decimals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from oracle import run

import edgec.passes
from edgec.graph import Graph, load
from edgec.passes import PASSES
from edgec.rewrite import optimize, parse
from edgec.tensors import Constant, numpy_dtype

HEADER = '<ir_version: 13, opset_import: ["" : 25]>\n'
NARROW = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
SECTION = re.compile(r"\[(case|options|prepare|symbolic|after|same|skip)\b\s*(.*?)\](.*)")
HERE = Path(__file__).parent


@dataclass
class Case:
    file: str
    name: str
    line: int
    sections: dict[str, str] = field(default_factory=dict)

    @property
    def passname(self) -> str:
        return self.file.replace("_", "-")


def read_cases() -> Iterator[Case]:
    for path in sorted(HERE.glob("*.cases")):
        case, section = None, ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = SECTION.match(line)
            if match and match[1] == "case":
                case, section = Case(path.stem, match[2], number), "before"
                yield case
                case.sections[section] = ""
            elif match and case is not None:
                section = match[1]
                case.sections[section] = match[3].strip()
                if section in ("options", "prepare", "symbolic"):
                    section = "before"
            elif case is not None and not line.startswith("#"):
                case.sections[section] += line + "\n"


CASES = list(read_cases())


def parse_model(text: str) -> tuple[onnx.ModelProto, set[str]]:
    """The model, and the names of its random constants."""
    model = onnx.parser.parse_model(text if text.lstrip().startswith("<") else HEADER + text)
    graph = model.graph
    made = {name for node in graph.node for name in node.output}
    rng = np.random.default_rng(7)
    random = set()
    for info in list(graph.value_info):
        if info.name not in made:
            shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
            values = random_values(
                rng, numpy_dtype(info.type.tensor_type.elem_type), shape, info.name
            )
            graph.initializer.append(numpy_helper.from_array(values, info.name))
            graph.value_info.remove(info)
            random.add(info.name)
    return model, random


def random_values(
    rng: np.random.Generator, dtype: np.dtype[Any], shape: list[int], name: str
) -> np.ndarray[Any, Any]:
    if dtype.kind in "iu":
        return rng.integers(1, 9, shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    values = rng.standard_normal(shape)
    return np.asarray(np.abs(values) + 0.5 if name.startswith("var") else values, dtype)


def as_declared(graph: Graph, feed: dict[str, Any]) -> dict[str, Any]:
    """`feed` in the types of the inputs, which a pass may have changed."""
    return {t.name: np.asarray(feed[t.name], t.dtype) for t in graph.gs.inputs}


def feed_for(graph: Graph) -> dict[str, Any]:
    rng = np.random.default_rng(11)
    shapes = {t.name: [d if isinstance(d, int) else 2 for d in t.shape] for t in graph.gs.inputs}
    return {t.name: random_values(rng, t.dtype, shapes[t.name], t.name) for t in graph.gs.inputs}


def assert_same_numbers(before: list[Any], after: list[Any], numerics: str) -> None:
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        assert a.shape == b.shape
        if numerics in NARROW:
            step = float(ml_dtypes.finfo(NARROW[numerics]).eps)
            np.testing.assert_allclose(b.astype(a.dtype), a, rtol=4 * step, atol=4 * step)
            continue
        assert a.dtype == b.dtype
        if numerics == "quantized":
            np.testing.assert_allclose(b, a, rtol=0, atol=0.1 * np.abs(a).max())
        elif numerics == "exact" or a.dtype.kind != "f":
            assert a.tobytes() == b.tobytes()
        else:
            scale = np.abs(a[np.isfinite(a)]).max(initial=0.0)
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * scale)


def assert_same_graph(actual: Graph, expected: Graph, random: set[str]) -> None:
    """Same nodes in the same order on the same tensors; names of inner tensors do not matter."""
    shown = onnx.printer.to_text(actual.to_onnx().graph)
    twin: dict[Any, Any] = {}

    def tensors(want: list[Any], have: list[Any]) -> None:
        assert len(want) == len(have), shown
        for a, b in zip(want, have, strict=True):
            if not a.name:
                assert not b.name, shown
            elif isinstance(a, Constant):
                assert isinstance(b, Constant), shown
                assert (a.dtype, a.shape) == (b.dtype, b.shape), shown
                assert a.name in random or a.values.tobytes() == b.values.tobytes(), b.values
            else:
                assert twin.setdefault(a, b) is b, shown

    def graphs(want: Any, have: Any) -> None:
        assert [n.op for n in want.nodes] == [n.op for n in have.nodes], shown
        tensors(want.inputs, have.inputs)
        for a, b in zip(want.nodes, have.nodes, strict=True):
            tensors(a.inputs, b.inputs)
            tensors(a.outputs, b.outputs)
            assert (a.domain, a.attrs.keys()) == (b.domain, b.attrs.keys()), shown
            for name, value in a.attrs.items():
                if hasattr(value, "nodes"):
                    graphs(value, b.attrs[name])
                elif isinstance(value, Constant):
                    tensors([value], [b.attrs[name]])
                else:
                    assert value == b.attrs[name], shown
        tensors(want.outputs, have.outputs)

    graphs(expected.gs, actual.gs)
    for side in ("inputs", "outputs"):
        names = [[t.name for t in getattr(g.gs, side)] for g in (actual, expected)]
        assert names[0] == names[1]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.file}-{c.name}")
def test_case(case: Case) -> None:
    check(case)


def check(case: Case, trusted: bool = False) -> None:
    """Raises AssertionError where the pass does something else than `case` says."""
    model, _ = parse_model(case.sections["before"])
    symbolic = "symbolic" in case.sections
    graph = load(model, symbolic=symbolic, assume_batch=False, trusted=trusted)
    if "prepare" in case.sections:
        optimize(graph, parse(case.sections["prepare"], PASSES))
    options = case.sections.get("options", "")
    (rewriter,) = parse(case.passname + "{" + options + "}", PASSES)
    feed = feed_for(graph)
    before_text = onnx.printer.to_text(graph.to_onnx())
    before = run(graph.to_source_opset(), feed) if "after" in case.sections else []

    (report,) = optimize(graph, [rewriter])

    result = graph.to_onnx()
    onnx.checker.check_model(result, full_check=True)
    if "after" in case.sections:
        expected, random = parse_model(case.sections["after"])
        assert report.rewrites > 0
        wanted = load(expected, symbolic=symbolic, assume_batch=False, trusted=trusted)
        assert_same_graph(graph, wanted, random)
        after = run(graph.to_source_opset(), as_declared(graph, feed))
        assert_same_numbers(before, after, rewriter.numerics)
    else:
        assert onnx.printer.to_text(result) == before_text
        if "skip" in case.sections:
            assert case.sections["skip"].strip() in report.skips
        else:
            assert not report.skips


def test_every_pass_has_its_file_and_cases() -> None:
    for name, kind in PASSES.items():
        module = kind.__module__.rsplit(".", 1)[1]
        assert module == name.replace("-", "_")
        assert kind.__name__ == "".join(word.capitalize() for word in name.split("-"))
        assert any(case.file == module for case in CASES), f"{module}.cases is missing"


@pytest.mark.parametrize("name", PASSES)
def test_docstring_is_the_specification(name: str) -> None:
    doc = __import__(PASSES[name].__module__, fromlist=["_"]).__doc__
    assert "=>" in doc
    assert "*Needs*" in doc
    assert f"*Numerics*: {PASSES[name].numerics}" in doc


def test_levels_hold_passes_of_the_table() -> None:
    for passes in edgec.passes.LEVELS.values():
        assert all(type(p) is PASSES[p.name] for p in passes)
    assert edgec.passes.LEVELS[0] == ()
