"""Every family of kernels against ONNX Runtime, on the instruction sets of this machine, under 1, 2
and 3 threads.

The whole grid, `-k O3` the part of it at -O3:
    pytest -m "nightly or not nightly" tests/lower/test_kernel_grid.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from edgec import targets
from edgec.compiler import compile_model
from edgec.graph import load
from edgec.lower.lowering import lower_graph
from edgec.options import Options
from edgec.targets.cpu import schedule

from .kernel_cases import FAMILIES
from .kernel_draws import Draw, draws
from .many_nodes import RUNNABLE, Model, judge

DRAWN = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""A failure names the node that is wrong: there is nothing to shrink."""


def grid(*groups: str) -> Model:
    """The families of these groups, each with random numbers of its own."""
    model = Model()
    for group in groups:
        for family in FAMILIES[group]:
            model.random = np.random.default_rng([*family.__name__.encode()])
            family(model)
    return model


def lesser_levels() -> list[str]:
    host = targets.resolve("host")
    return [n for n in RUNNABLE if targets.resolve(n).vector_bits < host.vector_bits]


@pytest.mark.parametrize("target", ["host", *lesser_levels()])
def test_grid(target: str, tmp_path: Path) -> None:
    """Half of it on the highest level, a part on each of the others."""
    model, others = grid(*FAMILIES), lesser_levels()
    if target in others:
        model.outputs = model.outputs[others.index(target) :: 8]
    else:
        model.outputs = model.outputs[::2]
    judge(model, [target], tmp_path)


def test_drawn_attributes(tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(DRAWN, max_examples=1)
    @given(draws(54))
    def right(drawn: list[Draw]) -> None:
        judge(model_of(drawn), ["host"], tmp_path_factory.mktemp("drawn"))

    right()


def model_of(drawn: list[Draw]) -> Model:
    model = Model()
    for each in drawn:
        each.add(model)
    return model


@pytest.mark.nightly
@pytest.mark.parametrize("level", [0, 2, 3], ids="O{}".format)
@pytest.mark.parametrize("group", FAMILIES)
def test_grid_at_every_level(group: str, level: int, tmp_path: Path) -> None:
    judge(grid(group), RUNNABLE, tmp_path, level=level)


@pytest.mark.nightly
@pytest.mark.parametrize("target", [*lesser_levels(), "host", "aarch64"])
def test_rules_take_only_what_they_can_schedule(target: str) -> None:
    """A rule that TVM refuses halfway is passed over when compiling; the kernel is slow then."""
    resolved = targets.resolve(target)
    graph = load(grid(*FAMILIES).expected()[0])
    for kernel in lower_graph(graph, "grid", [], resolved).kernels.values():
        schedule(kernel, resolved, strict=True)


@pytest.mark.nightly
@pytest.mark.parametrize("level", [2, 3], ids="O{}".format)
def test_many_drawn_attributes(level: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(DRAWN, max_examples=20)
    @given(draws(108))
    def right(drawn: list[Draw]) -> None:
        judge(model_of(drawn), RUNNABLE, tmp_path_factory.mktemp("drawn"), level=level)

    right()


@pytest.mark.nightly
@pytest.mark.parametrize("group", FAMILIES)
def test_grid_emulated(group: str, tmp_path: Path) -> None:
    other = targets.resolve("aarch64")
    if targets.runs_here(other) or targets.emulator(other) is None:
        pytest.skip("needs qemu-aarch64, elsewhere")
    path, options = tmp_path / "m.edgec", Options(targets=(other.name,))
    done = compile_model(grid(group).expected()[0], path, options)
    assert [variant["verified"] for variant in done.manifest["variants"]] == ["emulated"]
