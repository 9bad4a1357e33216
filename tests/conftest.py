"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import Done, Edgec
from onnx import TensorProto, helper, numpy_helper

from edgec.cache import Cache
from edgec.cli import main

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def digits() -> Path:
    """A small trained model, input `image` [N, 1, 8, 8], output `logits` [N, 10]."""
    return REPO / "models" / "digits_cnn.onnx"


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that begins empty, but for what zig builds once per C library."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "zig").symlink_to(Cache.default().folder("zig").resolve())
    return folder


@pytest.fixture
def edgec(
    session_cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Edgec:
    """`edgec("compile", model, ...)` runs the command in this process."""
    monkeypatch.setenv("EDGEC_CACHE_DIR", str(session_cache))

    def run(*words: object) -> Done:
        capfd.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Done(code, *capfd.readouterr())

    return run


@pytest.fixture
def start_edgec(session_cache: Path) -> Callable[..., subprocess.Popen[str]]:
    """`start_edgec("compile", model, ...)` starts the command as a process in a group of its
    own."""

    def start(*words: object, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "EDGEC_CACHE_DIR": str(session_cache)}
        return subprocess.Popen(
            [sys.executable, "-m", "edgec.cli", *map(str, words)],
            env=environment | options.pop("env", {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )

    return start


@pytest.fixture(scope="session")
def digits_artifact(
    digits: Path, session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`digits` compiled for this machine at the default level; never to be changed."""
    from edgec.compiler import compile_model

    path = tmp_path_factory.mktemp("compiled") / "digits_cnn.edgec"
    compile_model(digits, path, cache=Cache(session_cache))
    return path


@pytest.fixture
def chain() -> Callable[[int], onnx.ModelProto]:
    """A model of so many nodes in a row, a quarter of them Identity, with a symbolic batch."""
    return _chain


def _chain(nodes: int) -> onnx.ModelProto:
    ops = ["Relu", "Add", "Identity", "Sigmoid"]
    items = [
        helper.make_node(
            ops[i % 4],
            [f"t{i}", "w"] if ops[i % 4] == "Add" else [f"t{i}"],
            [f"t{i + 1}"],
            name=f"n{i}",
        )
        for i in range(nodes)
    ]
    x = helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["N", 16])
    y = helper.make_tensor_value_info(f"t{nodes}", TensorProto.FLOAT, ["N", 16])
    weight = numpy_helper.from_array(np.ones(16, np.float32), "w")
    return helper.make_model(
        helper.make_graph(items, "chain", [x], [y], [weight]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
