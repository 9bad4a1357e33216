"""Models raised to edgec's opset and taken back to their own."""

from __future__ import annotations

import pytest
from graphs import OPSET_CASES, SMALL, assert_same, parse
from oracle import random_feed, run

from edgec.errors import ModelError
from edgec.graph import INTERNAL_OPSET, load


class TestOpsets:
    @pytest.mark.parametrize(
        ("opset", "text"), [c[1:] for c in OPSET_CASES], ids=[c[0] for c in OPSET_CASES]
    )
    def test_raised_model_computes_the_same(self, opset: int, text: str) -> None:
        model = parse(f'<ir_version: 4, opset_import: ["" : {opset}]>\n' + text)
        graph = load(model)
        assert graph.source_opset == opset
        assert graph.opset == INTERNAL_OPSET
        feed = random_feed(graph)
        expected = run(model, feed)
        assert_same(expected, run(graph.to_onnx(), feed))
        back = graph.to_source_opset()
        assert_same(expected, run(back, feed))
        resizes = any(node.op_type == "Resize" for node in back.graph.node)
        assert back.opset_import[0].version == (11 if resizes else opset)

    def test_what_becomes_several_nodes_gives_them_several_names(self) -> None:
        text = "g (float[2,3,4] x) => (float[2,3,4] y) { [only] y = Softmax(x) }"
        model = parse(f'<ir_version: 4, opset_import: ["" : 11]>\n{text}')
        names = [node.name for node in load(model).nodes()]
        assert len(names) > 1
        assert names.count("only") == 1

    def test_a_newer_model_stays_newer_when_it_must(self) -> None:
        text = "g (float[4] x) => (float[4] y) <int64 a = {0}> { y = CumProd(x, a) }"
        graph = load(parse('<ir_version: 13, opset_import: ["" : 26]>\n' + text))
        assert graph.opset == 26
        assert graph.to_onnx().opset_import[0].version == 26

    def test_a_newer_model_is_lowered_when_it_can(self) -> None:
        graph = load(parse('<ir_version: 13, opset_import: ["" : 26]>\n' + SMALL))
        assert graph.opset == INTERNAL_OPSET

    @pytest.mark.parametrize(
        ("opset", "body"),
        [
            (12, "Softmax <axis = 1> (x)"),
            (12, "LogSoftmax <axis = 0> (x)"),
            (18, 'Pad <mode = "wrap"> (x, p)'),
            (13, "Reshape <allowzero = 1> (x, s)"),
            (10, "Concat <axis = -2> (x, x)"),
            (10, "Clip(x, q)"),
        ],
    )
    def test_what_an_old_opset_cannot_say(self, opset: int, body: str) -> None:
        text = "g (float[2,3,4] x, float q) => (float[a,b,c] y) <int64[3] s = {2, 3, 4},"
        text += f" int64[6] p = {{1, 0, 0, 0, 0, 0}}> {{ y = {body} }}"
        graph = load(parse(text))
        with pytest.raises(ModelError):
            graph.to_onnx(opset)
        feed = random_feed(graph)
        later = graph.to_onnx(opset + 1)
        assert_same(run(graph.to_onnx(), feed), run(later, feed))

    def test_an_operator_that_an_old_opset_lacks(self) -> None:
        text = "g (float[2] x) => (float[2] y) { y = Gelu(x) }"
        graph = load(parse(text))
        with pytest.raises(ModelError, match="Gelu"):
            graph.to_onnx(17)
