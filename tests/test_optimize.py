"""`edgec optimize`, `bisect` and `diff`, and the library behind them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, numpy_helper

import edgec as library
from edgec.arrays import load_npz
from edgec.errors import ModelError, UsageError, VerifyError
from edgec.graph import load
from edgec.modeldiff import diff
from edgec.optimizer import Pipeline, load_pass, optimize_model
from edgec.passes.fuse_conv_bn import FuseConvBn
from edgec.passproof import PassProof, samples
from edgec.rewrite import Skip

Edgec = Callable[..., Any]

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


def text_model(text: str, opset: int = 17) -> onnx.ModelProto:
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
    return onnx.parser.parse_model(header + text)


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_library_keeps_opset_signature_and_metadata(digits: Path) -> None:
    source = onnx.load(digits)
    model = library.optimize(digits)
    onnx.checker.check_model(model, full_check=True)
    assert "BatchNormalization" not in ops(model)
    assert model.opset_import[0].version == source.opset_import[0].version
    assert model.metadata_props == source.metadata_props
    assert model.producer_name == source.producer_name
    assert model.graph.input == source.graph.input, "the batch stays symbolic"
    assert model.graph.output == source.graph.output
    assert onnx.load(digits) == source


def test_library_takes_passes_names_and_both(digits: Path) -> None:
    assert "BatchNormalization" in ops(library.optimize(digits, passes=[]))
    assert "BatchNormalization" in ops(library.optimize(digits, level=1))
    for passes in ("fuse-conv-bn", [FuseConvBn()], ["eliminate-dead,fold-constants", FuseConvBn()]):
        assert "BatchNormalization" not in ops(library.optimize(digits, passes=passes))
    assert "BatchNormalization" not in ops(library.optimize(digits, extra=[FuseConvBn()], level=0))
    assert "BatchNormalization" in ops(library.optimize(digits, disable=["fuse-conv-bn"]))
    with pytest.raises(UsageError, match="no pass 'fuse'"):
        library.optimize(digits, disable=["fuse"])
    with pytest.raises(UsageError, match="no level 4"):
        library.optimize(digits, level=4)
    with pytest.raises(UsageError, match="is no pass"):
        library.optimize(digits, passes=[3])  # type: ignore[list-item]


def test_dims_and_shapes_bind(digits: Path) -> None:
    one = library.optimize(digits, dims={"N": 3})
    assert one.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    two = library.optimize(digits, shapes={"image": (3, 1, 8, 8)})
    assert two.graph.input[0] == one.graph.input[0]


def test_command_writes_and_summarises(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    done = edgec("optimize", digits, "-o", out)
    assert done.code == 0
    assert done.out.startswith(f"{out}: 13 nodes to 10 in ")
    assert "BatchNormalization" not in ops(onnx.load(out))
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    again = edgec("optimize", digits, "-o", tmp_path / "again.onnx")
    assert again.code == 0
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()


def test_command_options(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"

    def left(*words: object) -> int:
        done = edgec("optimize", digits, "-o", out, *words)
        assert done.code == 0, done.err
        return ops(onnx.load(out)).count("BatchNormalization")

    assert left("-O0") == left("--disable", "fuse-conv-bn") == left("--passes", "") == 3
    assert left("--passes", "fuse-conv-bn") == left("-O3") == 0
    assert [left("--stop-after", n, "--passes", "fuse-conv-bn") for n in (0, 2)] == [3, 1]
    shown = edgec("optimize", digits, "-o", out, "--print-after", "fuse-conv-bn", "--time-passes")
    assert "BatchNormalization" not in shown.err.partition("after fuse-conv-bn:")[2]
    assert "left alone" in shown.err
    for words in (["--print-after", "x"], ["--disable", "x"], ["--dim", "N=1,2"]):
        assert edgec("optimize", digits, "-o", out, *words).code == 2


def test_default_output(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(digits.read_bytes())
    assert edgec("optimize", tmp_path / "m.onnx").code == 0
    assert (tmp_path / "m.opt.onnx").exists()


def test_report(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    text = edgec("optimize", digits, "-o", out, "--report").out
    assert "BatchNormalization       3      0" in text
    assert "parameters                     15,578   15,338" in text
    assert "fuse-conv-bn" in text
    result = edgec("optimize", digits, "-o", out, "--json").result
    assert (result["before"]["nodes"], result["after"]["nodes"]) == (13, 10)
    assert result["bytes"] == out.stat().st_size
    [fused] = [each for each in result["passes"] if each["name"] == "fuse-conv-bn"]
    assert fused["rewrites"] == 3
    assert fused["rolled_back"] == ""


def test_html_report(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out.onnx", tmp_path / "report.html"
    edgec("optimize", digits, "-o", out, "--report", file)
    rows = {row[0]: row[1:] for row in Page(file.read_text()).rows if row}
    assert rows["nodes"] == ["13", "10", "-3 (-23.1%)"]
    assert rows["parameters"] == ["15,578", "15,338", "-240 (-1.5%)"]
    assert {"MACs", "bytes of weights", "bytes of activations at peak"} <= rows.keys()
    assert rows["bytes of the file"][:2] == [f"{path.stat().st_size:,}" for path in (digits, out)]
    assert rows["BatchNormalization"] == ["3", "0", "-3 (-100.0%)"]
    assert rows["Conv"] == ["3", "3", ""]
    assert rows["fuse-conv-bn"][0] == "3"
    assert re.fullmatch(r"[\d.]+ (us|ms|s)", rows["fuse-conv-bn"][1])
    assert (
        "3 \N{MULTIPLICATION SIGN} its input is not made by Relu or Clip" in rows["fuse-relu-clip"]
    )
    assert rows["all"][0] == str(sum(int(row[0]) for name, row in rows.items() if "-" in name))


class Page(HTMLParser):
    """Text and tags of a page, and the cells of its tables, row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        assert not {"src", "href"} & {name for name, _ in attrs}, "the page needs another file"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_html_report_escapes_what_the_model_says(edgec: Edgec, tmp_path: Path) -> None:
    model = text_model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.node[0].domain = "<script>alert(1)</script>"
    model.opset_import.add(domain="<script>alert(1)</script>", version=1)
    path = tmp_path / "<b>m.onnx"
    onnx.save(model, path)
    page = tmp_path / "r.html"
    done = edgec("optimize", path, "-o", tmp_path / "o.onnx", "--report", page)
    assert done.code == 0, done.err
    parsed = Page(page.read_text())
    assert {"script", "b", "link", "img"}.isdisjoint(parsed.tags)
    assert "<script>alert(1)</script>.Relu" in parsed.text
    assert "<b>m.onnx" in parsed.text


def test_external_data_stays_external(edgec: Edgec, tmp_path: Path) -> None:
    model = text_model("g (float[2,64] x) => (float[2,64] y) <float[64,64] w> { y = MatMul(x, w) }")
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    del model.graph.value_info[:]
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    inside = tmp_path / "inside.onnx"
    onnx.save(model, inside)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin")
    out = tmp_path / "out.onnx"
    assert edgec("optimize", tmp_path / "m.onnx", "-o", out).code == 0
    [tensor] = onnx.load(out, load_external_data=False).graph.initializer
    assert tensor.data_location == TensorProto.EXTERNAL
    [tensor] = onnx.load(out).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), weight)
    assert edgec("optimize", inside, "-o", tmp_path / "one.onnx").code == 0
    assert not (tmp_path / "one.onnx.data").exists()


def test_a_failure_leaves_the_output_alone(edgec: Edgec, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"before")
    (tmp_path / "m.onnx").write_bytes(b"no model")
    assert edgec("optimize", tmp_path / "m.onnx", "-o", out).code == 3
    assert out.read_bytes() == b"before"


def test_verify_each_accepts_right_passes(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    done = edgec("optimize", digits, "-o", tmp_path / "o.onnx", "--verify", "each", "--json")
    assert not any(each["rolled_back"] for each in done.result["passes"])
    assert done.result["after"]["nodes"] == 10
    assert [path.name for path in tmp_path.iterdir()] == ["o.onnx"]


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


def test_verify_each_rejects_what_onnxruntime_refuses(digits: Path) -> None:
    from dataclasses import dataclass
    from typing import ClassVar

    from edgec.rewrite import Numerics, Rewrite

    @dataclass(frozen=True)
    class Break(Rewrite):
        name: ClassVar[str] = "break"
        numerics: ClassVar[Numerics] = "rounding"
        roots: ClassVar[tuple[str, ...]] = ("Flatten",)

        def rewrite(self, node: Any, graph: Any) -> None:
            new = graph.insert(node, "Unknown", [node.inputs[0]], domain="nobody's")
            graph.replace(node.outputs[0], new.outputs[0])

    result = optimize_model(digits, Pipeline([Break()]), verify=PassProof())
    assert "ONNX Runtime cannot load the model" in result.passes[0].rolled_back
    assert "Flatten" in ops(result.model)


def test_verify_each_catches_what_is_a_little_wrong(digits: Path) -> None:
    """A pass whose every result is off by one in a thousand, and says that it only rounds."""
    from dataclasses import dataclass
    from typing import ClassVar

    from edgec.rewrite import Numerics, Rewrite, Skip

    @dataclass(frozen=True)
    class Scale(Rewrite):
        name: ClassVar[str] = "scale"
        numerics: ClassVar[Numerics] = "rounding"
        roots: ClassVar[tuple[str, ...]] = ("Gemm",)

        def rewrite(self, node: Any, graph: Any) -> None:
            if node.attrs.get("alpha", 1.0) != 1.0:
                raise Skip("scaled already")
            node.attrs["alpha"] = 1.001

    result = optimize_model(digits, Pipeline([Scale()]), verify=PassProof())
    assert "values are wrong" in result.passes[0].rolled_back


def test_verify_each_allows_for_amplified_rounding() -> None:
    """Folding its normalisations moves small scores by many times the tolerance, as ONNX Runtime's
    own optimisations do."""
    path = Path(__file__).parents[1] / "models" / "digits_detector.onnx"
    result = optimize_model(path, Pipeline(), verify=PassProof())
    assert not [report.rolled_back for report in result.passes if report.rolled_back]
    assert "BatchNormalization" not in ops(result.model)


def test_samples_reach_the_edges() -> None:
    model = text_model(
        "g (float[N,4] x, uint8[4] u, bool b) => (float[N,4] y) { y = Relu(x) }", opset=17
    )
    graph = load(model, symbolic=True, assume_batch=False)
    made = samples(graph)
    assert set(made) == {"random", "random again", "zeros", "large", "not finite", "limits"}
    for sample in made.values():
        assert [(a.dtype, a.shape) for a in sample.values()] == [
            (np.float32, (2, 4)),
            (np.uint8, (4,)),
            (np.bool_, ()),
        ]
    assert np.isnan(made["not finite"]["x"]).sum() == 1
    assert np.isinf(made["not finite"]["x"]).sum() == 2
    assert np.abs(made["limits"]["x"]).max() == np.finfo(np.float32).max
    assert np.abs(made["large"]["x"]).max() > 100
    assert not made["zeros"]["x"].any()
    for name, sample in samples(graph).items():
        for key, values in sample.items():
            np.testing.assert_array_equal(values, made[name][key])


def test_nothing_to_run_is_an_error() -> None:
    model = text_model("g (string[2] x) => (string[2] y) { z = Identity(x) y = Identity(z) }")
    with pytest.raises(VerifyError, match="no data can be made"):
        optimize_model(model, Pipeline(), verify=PassProof())


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


def test_random_results_cannot_be_compared(edgec: Edgec, tmp_path: Path) -> None:
    text = (
        "g (float[9] x) => (float[9] y)"
        "{ r = RandomNormalLike ATTRIBUTES (x) i = Identity(r) y = Add(x, i) }"
    )
    path = tmp_path / "m.onnx"
    onnx.save(text_model(text.replace("ATTRIBUTES", "")), path)
    for words in (["bisect"], ["optimize", "--verify", "each", "-o", tmp_path / "o.onnx"]):
        done = edgec(*words, path)
        assert done.code == 7
        assert "without a seed" in done.err
    onnx.save(text_model(text.replace("ATTRIBUTES", "<seed = 1.0>")), path)
    assert "none of the 1 rewrites" in edgec("bisect", path).out


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


def test_diff(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    assert edgec("optimize", digits, "-o", out).code == 0
    assert edgec("diff", digits, digits).out == "the models are the same\n"
    text = edgec("diff", digits, out).out
    assert "BatchNormalization       3       0" in text
    assert "- bn1 = BatchNormalization(conv1," in text
    assert "! relu1 = Relu(bn1) is now relu1 = Relu(conv1)" in text
    result = edgec("diff", digits, out, "--json").result
    assert result["same"] is False
    assert result["ops"] == {"BatchNormalization": [3, 0]}
    assert len(result["removed"]) == 3


def test_diff_of_signature_attributes_and_values() -> None:
    before = text_model(
        "g (float[2,3] x) => (float[2,3] y) <float[3] c = {1, 2, 3}>"
        "{ s = Softmax <axis = 0> (x) y = Add(s, c) }"
    )
    after = text_model(
        "g (float[2,3] x, float[2] z) => (float[2,3] y) <float[3] c = {1, 2, 4}>"
        "{ s = Softmax <axis = 1> (x) y = Add(s, c) }"
    )
    after.metadata_props.add(key="k", value="v")
    found = diff(load(before), load(after))
    assert found.signature == ["input absent is now 'z' float32 2"]
    assert found.changed == ["s = Softmax(x) <axis=0> is now s = Softmax(x) <axis=1>"]
    assert found.constants == (1, 1)
    assert found.metadata == {"k": (None, "v")}
    assert not found.removed
    assert not found.added
    assert "constants: 1 gone, 1 new" in found.text()


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


GELU = """g (float[2,3] x) => (float[2,3] y)
<float r = {1.41421356}, float one = {1}, float half = {0.5}> {
  a = Div(x, r)
  e = Erf(a)
  p = Add(e, one)
  m = Mul(x, p)
  y = Mul(m, half)
}"""
SILU = "g (float[2,3] x) => (float[2,3] y) { s = Sigmoid(x) y = Mul(x, s) }"


@pytest.mark.parametrize(
    ("text", "source", "level", "op", "written"),
    [
        (GELU, 17, 2, "Erf", 17),
        (GELU, 17, 3, "Gelu", 20),
        (GELU, 20, 2, "Gelu", 20),
        (GELU, 22, 3, "Gelu", 22),
        (SILU, 17, 2, "Sigmoid", 17),
        (SILU, 17, 3, "Swish", 24),
        (SILU, 24, 2, "Swish", 24),
        (SILU, 25, 3, "Sigmoid", 25),
    ],
)
def test_only_level_3_takes_a_newer_opset(
    text: str, source: int, level: int, op: str, written: int
) -> None:
    model = text_model(text, source)
    result = optimize_model(model, Pipeline(level=level), verify=PassProof())
    assert op in ops(result.model)
    assert result.model.opset_import[0].version == written
    assert result.after["opset"] == written
    assert not any(report.rolled_back for report in result.passes)


RELU = "g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }"


@pytest.mark.parametrize(
    ("text", "source", "opset", "op"),
    [(GELU, 17, 20, "Gelu"), (GELU, 20, 17, "Erf"), (RELU, 17, 7, "Relu"), (RELU, 17, 26, "Relu")],
)
def test_result_at_another_opset(text: str, source: int, opset: int, op: str) -> None:
    model = library.optimize(text_model(text, source), opset=opset, verify=opset <= 25)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    assert op in ops(model)


def test_opset_on_the_command_line(edgec: Edgec, tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    onnx.save(text_model("g (float[2] x) => (float[2] y) { [grid] y = Gelu(x) }", 20), path)
    done = edgec("optimize", path, "-o", out, "--opset", 24, "--verify", "each")
    assert done.code == 0, done.err
    assert onnx.load(out).opset_import[0].version == 24
    done = edgec("optimize", path, "-o", out, "--opset", 19)
    assert done.code == 3
    assert "opset 19 has no Gelu" in done.err
    assert "node 'grid'" in done.err
    done = edgec("optimize", path, "-o", out, "--opset", 99)
    assert done.code == 2
    assert "there is no opset 99" in done.err


def test_an_operator_without_a_way_to_the_opset_is_named() -> None:
    text = "g (float[1,1,4,4] x, float[1,3,3,2] k) => (float[1,1,3,3] y) { y = GridSample(x, k) }"
    with pytest.raises(ModelError, match="No Adapter") as error:
        library.optimize(text_model(text, 20), opset=17)
    assert error.value.where == "one of GridSample, going from opset 25 to 17"


def test_verify_does_not_ask_onnxruntime_for_nan_behind_a_recurrent_layer() -> None:
    text = """g (float[2,3,4] x, float[1,2,4] w, float[1,2,2] r) => (float[2,1,3,2] y) {
      y = RNN <hidden_size = 2> (x, w, r)
    }"""
    pipeline = Pipeline(passes="decompose-recurrent")
    (report,) = optimize_model(text_model(text), pipeline, verify=PassProof()).passes
    assert (report.rewrites, report.rolled_back) == (1, "")


@pytest.mark.parametrize("options", ["", "{keep_io=false}"])
def test_float16_agrees_and_stops_anywhere(digits: Path, options: str) -> None:
    passes = f"fuse-conv-bn,convert-to-float16{options}"
    result = optimize_model(digits, Pipeline(passes=passes), verify=PassProof())
    fuse, convert = result.passes
    assert not convert.rolled_back
    assert result.after["weight_bytes"] < 0.51 * result.before["weight_bytes"]
    for count in range(fuse.rewrites, fuse.rewrites + convert.rewrites):
        partly = optimize_model(digits, Pipeline(passes=passes, stop_after=count)).model
        onnx.checker.check_model(partly, full_check=True)


def test_a_pass_in_float16_is_held_to_it() -> None:
    from dataclasses import dataclass
    from typing import ClassVar

    from edgec.graph import Graph
    from edgec.rewrite import Numerics, Rewrite
    from edgec.tensors import Node

    @dataclass(frozen=True)
    class Scale(Rewrite):
        """Relu => Relu, times a number that is not one."""

        factor: float = 1.0

        name: ClassVar[str] = "scale"
        numerics: ClassVar[Numerics] = "float16"
        roots: ClassVar[tuple[str, ...]] = ("Relu",)

        def rewrite(self, node: Node, graph: Graph) -> None:
            if graph.consumers(node.outputs[0]):
                raise Skip("done")
            made = graph.insert(node, "Relu", list(node.inputs))
            factor = graph.constant(np.array(self.factor, np.float32), "factor")
            result = graph.insert(node, "Mul", [made.outputs[0], factor])
            graph.replace(node.outputs[0], result.outputs[0])

    for factor, right in ((1.01, True), (1.2, False)):
        pipeline = Pipeline(passes=[Scale(factor=factor)])
        (report,) = optimize_model(text_model(RELU), pipeline, verify=PassProof()).passes
        assert report.rewrites == 1
        assert bool(report.rolled_back) != right


@pytest.mark.parametrize(
    ("constant", "complaint"),
    [("60000.0", "overflows float16, sample 'random'"), ("6.0", ""), ("-inf", "")],
)
def test_verify_sees_overflow_inside(constant: str, complaint: str) -> None:
    text = f"""g (float[2,3] x) => (float[2,3] y) <float[1] k = {{{constant}}}> {{
      a = Mul(x, x) b = Mul(a, k) y = Tanh(b)
    }}"""
    pipeline = Pipeline(passes="convert-to-float16")
    (report,) = optimize_model(text_model(text), pipeline, verify=PassProof()).passes
    assert report.rewrites == 3
    assert complaint in report.rolled_back
    assert bool(complaint) == bool(report.rolled_back)


def test_what_is_to_stay_float32_exists() -> None:
    model = text_model("g (float[2] x) => (float[2] y) { [head] y = Neg(x) }")
    library.optimize(model, "convert-to-float16{keep=head+Softmax}")
    with pytest.raises(UsageError, match="no operator and no node 'haed'"):
        library.optimize(model, "convert-to-float16{keep=haed}")
