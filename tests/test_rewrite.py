"""The driver: fixed points, limits, rollback, reports; and the text form of passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx.parser
import pytest

from edgec.errors import PassError, UsageError
from edgec.graph import Graph, load
from edgec.passes import PASSES
from edgec.rewrite import AnyPass, Event, Numerics, Pass, Rewrite, Skip, optimize, parse
from edgec.tensors import Node, Variable


def graph(body: str = "a = Relu(x)\n b = Relu(a)\n y = Relu(b)") -> Graph:
    header = '<ir_version: 13, opset_import: ["" : 25]> g (float[2] x) => (float[2] y) {\n'
    return load(onnx.parser.parse_model(header + body + "}"))


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.gs.nodes]


@dataclass(frozen=True)
class Rename(Rewrite):
    """Relu => Abs, a wrong but simple rewrite; `only` gives up on other names."""

    only: str = ""
    times: int = 1
    fast: bool = False
    ratio: float = 0.5
    keep: tuple[str, ...] = ("a",)

    name: ClassVar[str] = "rename"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = ("Relu",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        if self.only and node.outputs[0].name != self.only:
            raise Skip("another name")
        new = graph.insert(node, "Abs", list(node.inputs))
        graph.replace(node.outputs[0], new.outputs[0])


@dataclass(frozen=True)
class RenameBack(Rename):
    name: ClassVar[str] = "rename-back"
    roots: ClassVar[tuple[str, ...]] = ("Abs",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        new = graph.insert(node, "Relu", list(node.inputs))
        graph.replace(node.outputs[0], new.outputs[0])


@dataclass(frozen=True)
class Grow(Rewrite):
    name: ClassVar[str] = "grow"
    numerics: ClassVar[Numerics] = "exact"
    roots: ClassVar[tuple[str, ...]] = ("Relu",)

    def rewrite(self, node: Node, graph: Graph) -> None:
        new = graph.insert(node, "Relu", [node.outputs[0]])
        graph.replace(node.outputs[0], new.outputs[0])


@dataclass(frozen=True)
class Whole(Pass):
    """Calls `action` once, as a whole-graph pass."""

    action: Any = None

    name: ClassVar[str] = "whole"
    numerics: ClassVar[Numerics] = "exact"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        node = graph.gs.nodes[-1]
        if node.op == "Relu":
            self.action(graph, node)
            yield node


class TestDriver:
    def test_no_passes_change_nothing(self) -> None:
        model = graph("a = Relu(x)\n dead = Exp(a)\n y = Relu(a)")
        before = onnx.printer.to_text(model.to_onnx())
        assert optimize(model, ()) == []
        assert onnx.printer.to_text(model.to_onnx()) == before

    def test_runs_to_a_fixed_point(self) -> None:
        model = graph()
        (report,) = optimize(model, [Rename()])
        assert ops(model) == ["Abs"] * 3
        assert report.rewrites == 3
        assert report.seconds > 0
        assert [t.name for t in model.gs.outputs] == ["y"]
        assert all(t.shape == (2,) for n in model.gs.nodes for t in n.outputs)

    @pytest.mark.parametrize("count", range(4))
    def test_stops_after(self, count: int) -> None:
        model = graph()
        (report,) = optimize(model, [Rename()], stop_after=count)
        assert report.rewrites == count
        assert ops(model) == ["Abs"] * count + ["Relu"] * (3 - count)
        onnx.checker.check_model(model.to_onnx(), full_check=True)

    def test_counts_the_reasons_of_the_last_run(self) -> None:
        model = graph()
        reports = optimize(model, [Rename(only="a"), Rename(only="zz")])
        assert reports[0].rewrites == 1
        assert dict(reports[0].skips) == {"another name": 2}
        assert dict(reports[1].skips) == {"another name": 2}

    def test_events(self) -> None:
        events: list[Event] = []
        model = graph()
        optimize(model, [Rename(only="a")], on_event=events.append)
        kinds = [(e.kind, e.name, e.reason) for e in events]
        assert kinds.count(("rewrite", "rename", "")) == 1
        assert ("skip", "rename", "another name") in kinds
        assert kinds[-1] == ("pass", "rename", "")
        assert events[0].graph is model

    def test_passes_that_undo_each_other(self) -> None:
        with pytest.raises(PassError, match=r"undo each other|without end"):
            optimize(graph(), [Rename(), RenameBack()])

    def test_a_pass_without_end(self) -> None:
        with pytest.raises(PassError, match="without end") as error:
            optimize(graph(), [Grow()])
        assert error.value.where == "pass 'grow'"

    def test_a_bug_in_a_pass_names_it(self) -> None:
        def fail(graph: Graph, node: Node) -> None:
            raise KeyError("oops")

        with pytest.raises(PassError, match="KeyError") as error:
            optimize(graph(), [Whole(fail)])
        assert error.value.where == "pass 'whole'"

    def test_dead_nodes_of_a_rewrite_are_removed(self) -> None:
        def bypass(graph: Graph, node: Node) -> None:
            new = graph.insert(node, "Abs", [graph.gs.inputs[0]])
            graph.replace(node.outputs[0], new.outputs[0])

        model = graph()
        optimize(model, [Whole(bypass)])
        assert ops(model) == ["Abs"]

    @pytest.mark.parametrize("rolls_back", [True, False])
    def test_verify(self, rolls_back: bool) -> None:
        model = graph()
        seen: list[tuple[list[str], list[str], str]] = []

        def verify(before: Graph, after: Graph, which: AnyPass) -> str | None:
            seen.append((ops(before), ops(after), which.name))
            return "differs" if rolls_back else None

        reports = optimize(model, [Rename(), Rename(only="zz")], verify=verify)
        assert seen == [(["Relu"] * 3, ["Abs"] * 3, "rename")]
        assert ops(model) == (["Relu"] if rolls_back else ["Abs"]) * 3
        assert reports[0].rolled_back == ("differs" if rolls_back else "")
        assert [t.name for t in model.gs.outputs] == ["y"]
        onnx.checker.check_model(model.to_onnx(), full_check=True)


class TestBrokenGraphs:
    """What a wrong pass leaves behind is found, and the pass is named."""

    def broken(self, action: Any) -> str:
        with pytest.raises(PassError) as error:
            optimize(graph(), [Whole(action)])
        assert "after pass 'whole'" in error.value.where
        return error.value.what

    def test_unmade_tensor(self) -> None:
        def action(graph: Graph, node: Node) -> None:
            node.op = "Abs"
            node.inputs[0] = Variable("ghost", np.dtype(np.float32), (2,))

        assert "'ghost' is used before it is made" in self.broken(action)

    def test_two_tensors_of_one_name(self) -> None:
        def action(graph: Graph, node: Node) -> None:
            node.op = "Abs"
            node.inputs[0].name = "x"

        assert "two tensors are named 'x'" in self.broken(action)

    def test_cycle(self) -> None:
        def action(graph: Graph, node: Node) -> None:
            node.op = "Abs"
            graph.gs.nodes[0].inputs[0] = node.outputs[0]

        assert "cycle" in self.broken(action)

    def test_made_twice(self) -> None:
        def action(graph: Graph, node: Node) -> None:
            node.op = "Abs"
            graph.insert(node, "Exp", [graph.gs.inputs[0]], outputs=[node.outputs[0]])

        assert "made twice" in self.broken(action)


class TestReplace:
    def test_refuses_what_would_rename_an_input(self) -> None:
        model = graph("y = Relu(x)")
        node = model.gs.nodes[0]
        assert "graph output" in (model.why_not_replace(node.outputs[0], node.inputs[0]) or "")
        with pytest.raises(PassError, match="graph output"):
            model.replace(node.outputs[0], node.inputs[0])


class TestParse:
    TABLE: ClassVar[dict[str, type[AnyPass]]] = {"rename": Rename, "rename-back": RenameBack}

    def test_names_and_options(self) -> None:
        passes = parse("rename, rename-back{only=b, times=0x10,fast=true},rename{}", self.TABLE)
        assert passes == (Rename(), RenameBack(only="b", times=16, fast=True), Rename())
        assert parse("rename{ratio=0.25}", self.TABLE) == (Rename(ratio=0.25),)
        passes = parse("rename{keep=b + c,times=2},rename{keep=}", self.TABLE)
        assert passes == (Rename(keep=("b", "c"), times=2), Rename(keep=()))
        assert parse("", self.TABLE) == ()

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("renam", "did you mean 'rename'"),
            ("rename{onyl=1}", "did you mean 'only'"),
            ("rename{times=two}", "'two' is not of type int"),
            ("rename{fast=perhaps}", "'perhaps' is not of type bool"),
            ("rename{times}", "needs a value"),
            ("rename{keep=b++c}", "'b++c' has an empty name"),
            ("rename{times=1", "cannot read"),
            ("rename rename", "cannot read"),
            ("{times=1}", "cannot read"),
            ("zzz", "there is: rename, rename-back"),
        ],
    )
    def test_errors(self, text: str, says: str) -> None:
        with pytest.raises(UsageError) as error:
            parse(text, self.TABLE)
        assert says in str(error.value)

    def test_real_passes(self) -> None:
        (fold,) = parse("fold-constants{budget=1_000}", PASSES)
        assert fold == PASSES["fold-constants"](budget=1000)  # type: ignore[call-arg]
