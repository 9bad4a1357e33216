"""Models that are refused, and functions, which are inlined or refused."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import OPSET_CASES, SMALL, function_chain, parse
from onnx import numpy_helper

from edgec.errors import EdgecError, ModelError
from edgec.graph import load


class TestFunctions:
    def test_inlined(self) -> None:
        graph = load(function_chain(3, 2))
        assert [n.op for n in graph.gs.nodes] == ["Relu"] * 8
        assert [o.domain for o in graph.to_onnx().opset_import if o.domain not in ("", "f")] == []

    def test_of_another_opset_are_converted(self) -> None:
        model = function_chain(1)
        model.functions[0].opset_import[0].version = 18
        assert [n.op for n in load(model).gs.nodes] == ["Relu"]

    @pytest.mark.parametrize(
        ("depth", "calls", "says"), [(101, 1, "deeper than 100"), (30, 2, "more than 1000000")]
    )
    def test_bombs(self, depth: int, calls: int, says: str) -> None:
        start = time.perf_counter()
        with pytest.raises(ModelError, match=says):
            load(function_chain(depth, calls))
        assert time.perf_counter() - start < 5

    def test_recursion(self) -> None:
        model = function_chain(2)
        model.functions[1].node[0].op_type = "F0"
        model.functions[1].node[0].domain = "f"
        with pytest.raises(ModelError, match="calls itself"):
            load(model)


class TestRefused:
    @pytest.mark.parametrize(
        "data", [b"", b"hello world, this is no model", b"\x00" * 100, b"PK\x03\x04" + b"a" * 99]
    )
    def test_not_onnx(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(data)
        with pytest.raises(ModelError):
            load(path)

    def test_truncated(self, tmp_path: Path) -> None:
        data = parse(SMALL).SerializeToString()
        path = tmp_path / "m.onnx"
        for end in range(1, len(data)):
            path.write_bytes(data[:end])
            with pytest.raises(ModelError):
                load(path, trusted=True)

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        for path in (tmp_path / "absent.onnx", tmp_path, Path("a\0b")):
            with pytest.raises(ModelError, match="cannot be read"):
                load(path)

    @pytest.mark.parametrize("opset", [0, -1, 29, 1 << 40])
    def test_absurd_opset(self, opset: int) -> None:
        model = parse(SMALL)
        model.opset_import[0].version = opset
        with pytest.raises(ModelError, match="opset"):
            load(model)

    def test_absurd_ir_version(self) -> None:
        model = parse(SMALL)
        model.ir_version = 1 << 40
        with pytest.raises(ModelError, match="IR version"):
            load(model)

    @pytest.mark.parametrize("side", ["input", "output"])
    @pytest.mark.parametrize("dim", [-1, -(1 << 62), 1 << 62])
    def test_absurd_dims(self, side: str, dim: int) -> None:
        model = parse(SMALL)
        getattr(model.graph, side)[0].type.tensor_type.shape.dim[1].dim_value = dim
        with pytest.raises(ModelError, match="absurd dimensions"):
            load(model)

    @pytest.mark.parametrize("side", ["input", "output", "initializer"])
    def test_listed_twice(self, side: str) -> None:
        model = parse(SMALL)
        getattr(model.graph, side).append(getattr(model.graph, side)[0])
        with pytest.raises(ModelError, match="listed twice"):
            load(model)

    def test_made_twice(self) -> None:
        model = parse(SMALL)
        model.graph.node[1].output[0] = "a"
        with pytest.raises(ModelError):
            load(model)

    def test_not_sorted(self) -> None:
        model = parse(SMALL)
        model.graph.node.insert(0, model.graph.node.pop())
        with pytest.raises(ModelError, match="topologically sorted"):
            load(model)

    def test_unknown_operator(self) -> None:
        model = parse(SMALL)
        model.graph.node[1].op_type = "Frobnicate"
        with pytest.raises(ModelError, match="Frobnicate"):
            load(model)

    def test_contradicting_shapes(self) -> None:
        text = "g (float[2,3] x, float[2,3] z) => (float[2,2] y) { y = MatMul(x, z) }"
        with pytest.raises(ModelError, match="MatMul"):
            load(parse(text))

    @pytest.mark.parametrize("elements", [4, 2000])
    @pytest.mark.parametrize("change", [-4, 4, 1])
    def test_tensor_data_of_the_wrong_size(self, elements: int, change: int) -> None:
        model = parse(f"g (float[{elements}] x) => (float[{elements}] y) {{ y = Relu(x) }}")
        model.graph.node[0].op_type = "Add"
        model.graph.node[0].input.append("w")
        tensor = numpy_helper.from_array(np.ones(elements, np.float32), "w")
        tensor.raw_data = (tensor.raw_data + b"abcd")[: 4 * elements + change]
        model.graph.initializer.append(tensor)
        with pytest.raises(ModelError, match=r"need|required"):
            load(model)

    def test_negative_dims_of_a_tensor(self) -> None:
        model = parse(SMALL)
        model.graph.initializer[0].dims[0] = -3
        with pytest.raises(ModelError):
            load(model)

    def test_nested_too_deep(self) -> None:
        model = parse("g (bool c, float[1] x) => (float[1] y) { y = Relu(x) }")
        graph = model.graph
        for _ in range(35):
            node = graph.node.add(op_type="If", input=["c"], output=["y"])
            node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
            graph = node.attribute[0].g
        with pytest.raises(ModelError, match="nested deeper"):
            load(model)

    def test_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(parse(SMALL).SerializeToString().replace(b"first", b"f\xffrst"))
        with pytest.raises(ModelError, match="UTF-8"):
            load(path)

    def test_no_opset(self) -> None:
        model = parse(SMALL)
        del model.opset_import[:]
        with pytest.raises(ModelError, match="opset"):
            load(model)

    def test_bytes_flipped_anywhere(self, tmp_path: Path) -> None:
        sources = [parse(SMALL).SerializeToString(), function_chain(3).SerializeToString()]
        sources += [
            parse(f'<ir_version: 4, opset_import: ["" : {c[1]}]>\n' + c[2]).SerializeToString()
            for c in OPSET_CASES
        ]
        rng = np.random.default_rng(1)
        path = tmp_path / "m.onnx"
        refused = 0
        for i in range(400):
            data = bytearray(sources[i % len(sources)])
            for _ in range(rng.integers(1, 4)):
                data[rng.integers(len(data))] = rng.integers(256)
            path.write_bytes(data)
            try:
                load(path).to_onnx()
            except EdgecError:
                refused += 1
        assert refused > 100
