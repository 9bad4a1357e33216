"""The pool of processes that compile kernels: crashes, time limits, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tvm
from tvm import te

from edgec import targets
from edgec.cache import Cache
from edgec.errors import LoweringError
from edgec.lower import build
from edgec.lower.build import Builders
from edgec.lower.worker import Request


def kernel(factor: float) -> tvm.tirx.PrimFunc:
    """y = factor * x over 64 floats."""
    x = te.placeholder((64,), "float32", name="x")
    return te.create_prim_func([x, te.compute((64,), lambda i: x[i] * factor, name="y")])


@pytest.fixture
def builders() -> Iterator[Builders]:
    with Builders(1) as pool:
        yield pool


def compile_one(pool: Builders, factor: float, cache: Path) -> bytes:
    built = pool.build({"k": kernel(factor)}, {}, targets.host(), Cache(cache))
    return built.kernels["k"].object


def test_compiled_once(builders: Builders, tmp_path: Path) -> None:
    functions = {"a": kernel(2), "b": kernel(3)}
    told: list[tuple[int, int, str]] = []
    first = builders.build(
        functions, {}, targets.host(), Cache(tmp_path), lambda *news: told.append(news)
    )
    assert first.cached == 0
    assert [news[:2] for news in told] == [(1, 2), (2, 2)]
    second = builders.build(functions, {}, targets.host(), Cache(tmp_path))
    assert second.cached == 2
    assert second.kernels == first.kernels
    assert all(each.object.startswith(b"\x7fELF") for each in first.kernels.values())


def test_a_crash_is_an_error_and_the_next_kernel_is_built(
    builders: Builders, tmp_path: Path
) -> None:
    [worker] = builders._workers
    worker._process.kill()
    with pytest.raises(LoweringError, match="the compiler process ended with status -9"):
        compile_one(builders, 2, tmp_path)
    assert compile_one(builders, 2, tmp_path).startswith(b"\x7fELF")


def test_a_kernel_that_takes_too_long(
    builders: Builders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "TIME_LIMIT", 0.05)
    with pytest.raises(LoweringError, match="took longer than"):
        compile_one(builders, 2, tmp_path)
    assert not list(tmp_path.rglob("kernel/*/*"))


def test_a_kernel_that_does_not_compile(builders: Builders, tmp_path: Path) -> None:
    """The reason that TVM gives is told, and the worker lives on."""
    [worker] = builders._workers
    before = worker._process.pid
    answer = worker.ask(Request("{", "k", targets.host(), None))
    assert "json" in answer.error.lower()
    assert worker._process.pid == before
    assert compile_one(builders, 2, tmp_path).startswith(b"\x7fELF")


def test_the_end_stops_a_build(tmp_path: Path) -> None:
    """Stopped from another thread, it starts no further process and returns."""
    pool = Builders(1)
    [worker] = pool._workers
    thread = threading.Thread(target=pool.__exit__, args=(None, None, None))
    threading.Timer(0.1, thread.start).start()
    functions = {f"k{n}": kernel(n) for n in range(200)}
    started = time.monotonic()
    built = pool.build(functions, {}, targets.host(), Cache(tmp_path))
    thread.join()
    assert time.monotonic() - started < 5
    assert len(built.kernels) < 200
    assert worker._process.poll() == -9


def test_structure_is_what_names_a_kernel() -> None:
    assert build.symbol_of(kernel(2)) == build.symbol_of(kernel(2))
    assert build.symbol_of(kernel(2)) != build.symbol_of(kernel(3))
    assert isinstance(kernel(2), tvm.tirx.PrimFunc)


class Unreadable(dict[str, int]):
    """Decisions that the worker, which cannot import this, dies of."""


def test_a_kernel_that_its_decisions_spoil_is_compiled_by_the_rule(
    builders: Builders, tmp_path: Path
) -> None:
    cache = Cache(tmp_path)
    plain = compile_one(builders, 2, tmp_path)
    decisions = {"k": Unreadable(knob=1)}
    built = builders.build({"k": kernel(2)}, {}, targets.host(), cache, decisions=decisions)
    assert built.kernels["k"].object == plain
    assert list(built.refused) == ["k"]
    good = builders.build({"k": kernel(2)}, {}, targets.host(), cache, decisions={"k": {"knob": 1}})
    assert good.kernels["k"].object == plain
    assert (good.cached, good.refused) == (0, {})
