"""What is left of a model when only the nodes that show a pass to be wrong are kept."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx.parser
import pytest

from edgec.arrays import load_npz
from edgec.cli import main
from edgec.graph import Graph, load
from edgec.optimizer import Pipeline, optimize_model
from edgec.passproof import PassProof
from edgec.reference import Reference
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node

PASS = '''
from dataclasses import dataclass
from typing import ClassVar

from edgec.rewrite import Rewrite, Skip


@dataclass(frozen=True)
class ExpOfSmall(Rewrite):
    """Takes the Exp out of Mul(Exp(a), b), which is wrong; all others it doubles and halves."""

    name: ClassVar[str] = "exp-of-small"
    numerics: ClassVar[str] = "exact"
    roots: ClassVar[tuple[str, ...]] = ("Mul",)

    def rewrite(self, node, graph):
        exp = graph.producer(node.inputs[0])
        if exp is None or exp.op not in ("Exp", "Relu"):
            raise Skip("it is no product of an Exp or a Relu")
        again = graph.insert(node, "Identity" if exp.op == "Exp" else "Abs", [exp.inputs[0]])
        if exp.op == "Relu":
            again.inputs[0] = exp.outputs[0]
        made = graph.insert(node, "Mul", [again.outputs[0], node.inputs[1]])
        graph.replace(node.outputs[0], made.outputs[0])
'''


def model(blocks: int, wrong: int) -> onnx.ModelProto:
    """A chain of so many products of a Relu, but for one, which is of an Exp."""
    lines = []
    for i in range(blocks):
        op = "Exp" if i == wrong else "Relu"
        lines.append(f"s{i} = Sigmoid(t{i}) e{i} = {op}(s{i})")
        lines.append(f"m{i} = Mul(e{i}, s{i}) t{i + 1} = Tanh(m{i})")
    body = "\n".join(lines).replace("t0", "x").replace(f"t{blocks}", "y")
    header = '<ir_version: 10, opset_import: ["" : 21]>\n'
    return onnx.parser.parse_model(f"{header} g (float[2,3] x) => (float[2,3] y) {{ {body} }}")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is written for the pass above on a model of 80 nodes."""
    tmp_path = tmp_path_factory.mktemp("shown")
    (tmp_path / "own.py").write_text(PASS)
    onnx.save(model(20, 13), tmp_path / "m.onnx")
    words = ["optimize", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "o.onnx")]
    words += ["--passes", "", "--pass", f"{tmp_path / 'own.py'}:ExpOfSmall", "--verify", "each"]
    assert main(words) == 0
    return tmp_path / "o.rejected" / "exp-of-small"


def test_few_nodes_are_left(shown: Path) -> None:
    left = onnx.load(shown / "before.onnx")
    assert [node.op_type for node in left.graph.node] == ["Exp", "Mul"]
    onnx.checker.check_model(left, full_check=True)


def test_the_inputs_are_those_of_the_whole_model(shown: Path) -> None:
    inputs, expected, actual = (
        load_npz(shown / f"{name}.npz") for name in ("inputs", "expected", "actual")
    )
    assert list(inputs) == ["s13"]
    assert ((inputs["s13"] > 0) & (inputs["s13"] < 1)).all(), "what a Sigmoid makes"
    with Reference(shown / "before.onnx") as engine:
        outputs, _ = engine.run(inputs)
    for name, values in outputs.items():
        np.testing.assert_array_equal(values, expected[name])
        assert not np.array_equal(values, actual[name])


def test_the_command_shows_it_again(
    shown: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shown)
    capfd.readouterr()
    assert main(shlex.split((shown / "command.sh").read_text())[1:]) == 0
    assert "exp-of-small undone" in capfd.readouterr().err


def test_what_only_the_whole_shows_is_left_whole(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class WrongInAll(Rewrite):
        """Wrong in models of more than 30 nodes."""

        name: ClassVar[str] = "wrong-in-all"
        numerics: ClassVar[Numerics] = "exact"
        roots: ClassVar[tuple[str, ...]] = ("Exp",)

        def rewrite(self, node: Node, graph: Graph) -> None:
            if sum(1 for _ in graph.nodes()) <= 30:
                raise Skip("the model is small")
            made = graph.insert(node, "Abs", [node.inputs[0]])
            graph.replace(node.outputs[0], made.outputs[0])

    source: Any = model(10, 4)
    result = optimize_model(source, Pipeline([WrongInAll()]), verify=PassProof(tmp_path))
    assert "not the same" in result.passes[0].rolled_back
    left = load(tmp_path / "wrong-in-all" / "before.onnx")
    assert len(left.gs.nodes) == 40
