"""Passes of a user's own: run, refused, found wrong by `--verify each` and by `bisect`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from command import Edgec
from graphs import ops

import edgec as library
from edgec.arrays import load_npz
from edgec.optimizer import load_pass

WRONG = '''
from dataclasses import dataclass
from typing import ClassVar

from edgec.rewrite import Rewrite, Skip


@dataclass(frozen=True)
class DropRelu(Rewrite):
    """Takes every Relu but the first for the identity: right on what is positive, wrong else."""

    name: ClassVar[str] = "drop-relu"
    numerics: ClassVar[str] = "exact"
    roots: ClassVar[tuple[str, ...]] = ("Relu",)

    def rewrite(self, node, graph):
        if node.name == "relu1":
            raise Skip("the first one is spared")
        graph.replace(node.outputs[0], node.inputs[0])


spare_all = DropRelu()
not_a_pass = 3
'''


@pytest.fixture
def wrong_pass(tmp_path: Path) -> str:
    """A user's pass that changes results, as `--pass` takes it."""
    path = tmp_path / "my passes.py"
    path.write_text(WRONG)
    return f"{path}:DropRelu"


def test_verify_each_undoes_a_wrong_pass(
    edgec: Edgec, digits: Path, tmp_path: Path, wrong_pass: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.onnx"
    words = ["optimize", digits, "-o", out, "--pass", wrong_pass]
    assert edgec(*words).code == 0
    assert ops(onnx.load(out)).count("Relu") == 1, "nothing finds it without --verify"
    done = edgec(*words, "--verify", "each")
    assert done.code == 0
    assert "warning: drop-relu undone: output 'logits' is not the same" in done.err
    assert ops(onnx.load(out)).count("Relu") == 3
    assert "BatchNormalization" not in ops(onnx.load(out)), "the others are kept"

    folder = tmp_path / "o.rejected" / "drop-relu"
    assert "not the same bit by bit, sample '" in (folder / "complaint.txt").read_text()
    assert len(onnx.load(folder / "before.onnx").graph.node) <= 3
    expected, actual = (load_npz(folder / f"{name}.npz") for name in ("expected", "actual"))
    assert any(not np.array_equal(value, actual[name]) for name, value in expected.items())
    monkeypatch.chdir(folder)
    command = shlex.split((folder / "command.sh").read_text())
    again = edgec(*command[1:])
    assert again.code == 0
    assert "drop-relu undone" in again.err


def test_library_verifies(digits: Path, wrong_pass: str) -> None:
    wrong = load_pass(wrong_pass)
    assert ops(library.optimize(digits, extra=[wrong])).count("Relu") == 1
    assert ops(library.optimize(digits, extra=[wrong], verify=True)).count("Relu") == 3


def test_bisect_names_the_rewrite(
    edgec: Edgec, digits: Path, tmp_path: Path, wrong_pass: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "guilty"
    words = ["bisect", digits, "-o", folder]
    assert "none of the 3 rewrites" in edgec(*words, "--passes", "fuse-conv-bn").out
    assert not folder.exists()
    done = edgec(*words, "--passes", "fuse-conv-bn", "--pass", wrong_pass, "--json")
    guilty = done.result["guilty"]
    assert done.result["rewrites"] == 5
    assert (guilty["number"], guilty["pass"]) == (4, "drop-relu")
    assert "relu2" in guilty["node"]
    assert "logits" in guilty["complaint"]
    before = onnx.load(folder / "drop-relu" / "before.onnx")
    assert ops(before).count("Relu") == 1
    assert len(ops(before)) <= 3
    monkeypatch.chdir(folder / "drop-relu")
    again = edgec(*shlex.split(Path("command.sh").read_text())[1:], "--json")
    assert again.result["guilty"]["number"] == 1


def test_bisect_of_a_pass_that_fails(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "fails.py"
    path.write_text(WRONG.replace("graph.replace(node.outputs[0], node.inputs[0])", "node.nothing"))
    done = edgec("bisect", digits, "--pass", f"{path}:DropRelu", "--passes", "fuse-conv-bn")
    assert done.code == 5
    assert "internal error" in done.err
    assert "the fault of no rewrite" in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("absent.py:Name", "there is no such Python file"),
        ("passes.py", "cannot read"),
        ("{file}:Absent", "no attribute 'Absent'"),
        ("{file}:not_a_pass", "3 is no pass"),
        ("{broken}:Name", "cannot be run: ZeroDivisionError"),
    ],
)
def test_wrong_user_passes(
    edgec: Edgec, digits: Path, tmp_path: Path, wrong_pass: str, text: str, said: str
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    file = wrong_pass.rpartition(":")[0]
    name = text.format(file=file, broken=tmp_path / "broken.py")
    done = edgec("optimize", digits, "-o", tmp_path / "o.onnx", "--pass", name)
    assert done.code == 2
    assert said in done.err


def test_user_pass_may_be_an_object(edgec: Edgec, digits: Path, tmp_path: Path, wrong_pass: str):
    name = f"{wrong_pass.rpartition(':')[0]}:spare_all"
    done = edgec("optimize", digits, "-o", tmp_path / "o.onnx", "--pass", name, "--json")
    assert done.result["after"]["ops"]["Relu"] == 1


def test_the_guide_s_example_runs(edgec: Edgec, tmp_path: Path) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "writing-a-pass.md").read_text()
    blocks = {
        kind: re.findall(rf"^```{kind}\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
        for kind in ("python", "onnx")
    }
    [source] = blocks["python"]
    before, after = (onnx.parser.parse_model(text) for text in blocks["onnx"])
    (tmp_path / "max_to_relu.py").write_text(source)
    onnx.save(before, tmp_path / "model.onnx")
    named = f"{tmp_path / 'max_to_relu.py'}:MaxToRelu"
    words = ["optimize", tmp_path / "model.onnx", "-o", tmp_path / "out.onnx", "--passes", ""]
    done = edgec(*words, "--pass", named, "--verify", "each", "--report")
    assert done.code == 0, done.err
    assert "undone" not in done.out
    assert "1 x no input is 0" in done.out
    made = onnx.load(tmp_path / "out.onnx")
    assert [(n.op_type, n.input, n.output) for n in made.graph.node] == [
        (n.op_type, n.input, n.output) for n in after.graph.node
    ]
    assert made.opset_import == after.opset_import
