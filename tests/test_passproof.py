"""What `--verify each` accepts of a pass and what it does not, and the data it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import Edgec
from graphs import ops, text_model

import edgec as library
from edgec.errors import UsageError, VerifyError
from edgec.graph import load
from edgec.optimizer import Pipeline, optimize_model
from edgec.passproof import PassProof, samples
from edgec.rewrite import Skip


def test_verify_each_accepts_right_passes(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    done = edgec("optimize", digits, "-o", tmp_path / "o.onnx", "--verify", "each", "--json")
    assert not any(each["rolled_back"] for each in done.result["passes"])
    assert done.result["after"]["nodes"] == 10
    assert [path.name for path in tmp_path.iterdir()] == ["o.onnx"]


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
        (report,) = optimize_model(
            text_model("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }"),
            pipeline,
            verify=PassProof(),
        ).passes
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
