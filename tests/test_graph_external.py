"""Weights beside the model: what is read and written, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import assert_same, parse
from onnx import TensorProto, helper, numpy_helper

import edgec.external
from edgec.errors import ModelError
from edgec.graph import load


class TestExternalData:
    def save(self, folder: Path, **entries: Any) -> Path:
        """A model whose weight of 8 floats lies in w.bin, with `entries` changed."""
        model = parse("g (float[8] x) => (float[8] y) { y = Relu(x) }")
        model.graph.node[0].op_type = "Add"
        model.graph.node[0].input.append("w")
        tensor = TensorProto(
            name="w", dims=[8], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
        )
        for key, value in ({"location": "w.bin"} | entries).items():
            tensor.external_data.add(key=key, value=str(value))
        model.graph.initializer.append(tensor)
        path = folder / "m.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    @pytest.mark.parametrize(
        ("entries", "first"),
        [
            ({}, 0),
            ({"offset": 4}, 1),
            ({"offset": 32, "length": 32}, 8),
            ({"length": 32}, 0),
            ({"location": "./w.bin"}, 0),
            ({"location": "deep/er/w.bin"}, 100),
        ],
    )
    def test_read(self, tmp_path: Path, entries: dict[str, Any], first: int) -> None:
        (tmp_path / "w.bin").write_bytes(np.arange(16, dtype=np.float32).tobytes())
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "deep" / "er" / "w.bin").write_bytes(
            np.arange(100, 108, dtype=np.float32).tobytes()
        )
        graph = load(self.save(tmp_path, **entries))
        np.testing.assert_array_equal(
            graph.gs.nodes[0].inputs[1].values, np.arange(first, first + 8, dtype=np.float32)
        )

    @pytest.mark.parametrize(
        "entries",
        [
            {"location": "../secret.bin"},
            {"location": "a/../../secret.bin"},
            {"location": "/etc/passwd"},
            {"location": "//etc/passwd"},
            {"location": "\\etc\\passwd"},
            {"location": "..\\secret.bin"},
            {"location": "C:\\secret.bin"},
            {"location": "file:///etc/passwd"},
            {"location": ""},
            {"location": "."},
            {"location": "w.bin\0.txt"},
            {"location": "w.bin/"},
            {"location": "a//w.bin"},
            {"location": "absent.bin"},
            {"location": "folder"},
            {"location": "symlink.bin"},
            {"location": "linked/secret.bin"},
            {"location": "hardlink.bin"},
            {"location": "fifo"},
            {"location": "/dev/zero"},
            {"location": "zero"},
            {"offset": 33},
            {"offset": -4},
            {"offset": 1 << 63},
            {"offset": "9" * 5000},
            {"offset": "four"},
            {"offset": "٤"},
            {"length": 1 << 40},
            {"length": 31},
            {"length": -1},
            {"length": 0},
        ],
        ids=str,
    )
    def test_refused(self, tmp_path: Path, entries: dict[str, Any]) -> None:
        outside = tmp_path / "secret.bin"
        outside.write_bytes(bytes(64))
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "w.bin").write_bytes(bytes(32))
        (folder / "folder").mkdir()
        (folder / "symlink.bin").symlink_to(outside)
        (folder / "linked").symlink_to(tmp_path)
        (folder / "hardlink.bin").hardlink_to(outside)
        (folder / "zero").symlink_to("/dev/zero")
        os.mkfifo(folder / "fifo")
        with pytest.raises(ModelError) as error:
            load(self.save(folder, **entries))
        assert error.value.where == "tensor 'w'"

    def test_one_file_used_by_many_tensors(self, tmp_path: Path) -> None:
        (tmp_path / "w.bin").write_bytes(bytes(1 << 20))
        model = onnx.load(self.save(tmp_path), load_external_data=False)
        model.graph.initializer[0].dims[0] = 1 << 18
        for i in range(20):
            model.graph.initializer.append(model.graph.initializer[0])
            model.graph.initializer[-1].name = f"w{i}"
        path = tmp_path / "m.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="many times over"):
            load(path)

    def test_not_from_memory(self, tmp_path: Path) -> None:
        (tmp_path / "w.bin").write_bytes(bytes(32))
        model = onnx.load(self.save(tmp_path), load_external_data=False)
        with pytest.raises(ModelError, match="given in memory"):
            load(model)

    def test_written_when_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        weight = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
        model = parse("g (float[3000] x) => (float[3000] y) { y = Relu(x) }")
        model.graph.node[0].op_type = "Add"
        model.graph.node[0].input.append("w")
        model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        graph = load(model)
        monkeypatch.setattr(edgec.external, "EXTERNAL_BYTES", 1000)
        graph.save(tmp_path / "big.onnx")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data"]
        assert (tmp_path / "big.onnx").stat().st_size < 1000
        again = load(tmp_path / "big.onnx")
        np.testing.assert_array_equal(again.gs.nodes[0].inputs[1].values, weight)
        onnx.checker.check_model(str(tmp_path / "big.onnx"))

    def test_written_from_branches_and_typed_data(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = parse("""g (bool c, float[3000] x) => (float[3000] y) {
          y = If (c) <
            then_branch = t () => (float[3000] r) { r = Mul(x, w) },
            else_branch = e () => (float[3000] r) { r = Relu(x) }
          >
        }""")
        weight = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
        typed = helper.make_tensor("w", TensorProto.FLOAT, [3000], weight.tolist())
        model.graph.node[0].attribute[0].g.initializer.append(typed)
        graph = load(model)
        monkeypatch.setattr(edgec.external, "EXTERNAL_BYTES", 1000)
        graph.save(tmp_path / "big.onnx")
        assert (tmp_path / "big.onnx.data").stat().st_size == weight.nbytes
        feed = {"c": np.array(True), "x": np.ones(3000, np.float32)}
        session = onnxruntime.InferenceSession(tmp_path / "big.onnx")
        assert_same([weight], session.run(None, feed))
