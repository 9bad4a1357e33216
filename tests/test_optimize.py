"""`edgec optimize`, its report, and the library behind it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import Edgec
from graphs import ops, text_model
from onnx import TensorProto, numpy_helper

import edgec as library
from edgec.errors import UsageError
from edgec.passes.fuse_conv_bn import FuseConvBn


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
