"""Spaces of small kernels: every schedule in them computes what the rule's does."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import tvm
import tvm_ffi
from lower.many_nodes import RUNNABLE, Model
from tvm import tirx

from edgec import targets
from edgec.graph import load
from edgec.lower.kernels import tvm_target
from edgec.lower.lowering import lower_graph
from edgec.targets.cpu import schedule
from edgec.targets.cpu.knobs import Decided
from edgec.tune.space import Decisions, Space
from edgec.tune.trace import KNOB, problem_of


def first_layer(m: Model) -> None:
    m.out(m.node("Relu", m.conv(m.input(1, 3, 19, 20), (3, 24), 3, 3, pads=[1, 1, 1, 1])))


def dense(m: Model) -> None:
    x = m.conv(m.input(1, 3, 16, 14), (3, 32), 1, 1)
    m.out(m.node("Relu", m.conv(x, (32, 64), 3, 3, pads=[1, 1, 1, 1])))


def deep(m: Model) -> None:
    x = m.conv(m.input(1, 3, 4, 5), (3, 64), 1, 1)
    m.out(m.node("Relu", m.conv(x, (64, 64), 3, 3, pads=[1, 1, 1, 1])))


def depthwise(m: Model) -> None:
    x = m.conv(m.input(1, 3, 12, 13), (3, 32), 1, 1)
    m.out(m.conv(x, (1, 32), 3, 3, pads=[1, 1, 1, 1], group=32))


def product(m: Model) -> None:
    m.out(m.node("Relu", m.node("MatMul", m.input(12, 64), m.weight(64, 96))))


def rows(m: Model) -> None:
    m.out(m.node("Softmax", m.input(6, 64)))


def transposed(m: Model) -> None:
    x = m.conv(m.input(1, 3, 5, 6), (3, 16), 1, 1)
    w = m.weight(16, 24, 2, 2)
    m.out(m.node("ConvTranspose", x, w, strides=[2, 2]))


def pooled(m: Model) -> None:
    x = m.conv(m.input(1, 3, 16, 16), (3, 32), 1, 1)
    m.out(m.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))


def averaged(m: Model) -> None:
    x = m.conv(m.input(1, 3, 8, 8), (3, 32), 1, 1)
    m.out(m.node("GlobalAveragePool", x))


def bytes_by_channel(m: Model) -> None:
    x = m.given(m.random.integers(0, 256, (1, 32, 12, 14), np.uint8))
    w = m.constant(m.random.integers(-128, 128, (32, 1, 3, 3), np.int8))
    sums = m.node("ConvInteger", x, w, m.constant(np.uint8(128)), pads=[1, 1, 1, 1], group=32)
    m.out(m.node("Cast", sums, to=onnx.TensorProto.FLOAT))


CASES = (
    first_layer,
    dense,
    deep,
    depthwise,
    product,
    rows,
    transposed,
    pooled,
    bytes_by_channel,
)


def kernels_of(build: Callable[[Model], None], target: targets.Target) -> list[tirx.PrimFunc]:
    model = Model()
    build(model)
    graph = load(model.expected()[0])
    return list(lower_graph(graph, "case", [], target).kernels.values())


def knobs(target: targets.Target) -> Callable[[tirx.PrimFunc], int]:
    """How many knobs a kernel has."""

    def count(function: tirx.PrimFunc) -> int:
        rule = Space(function, target).candidate({})
        return len(rule.choices) if rule else 0

    return count


def space_of(build: Callable[[Model], None], target: targets.Target) -> Space:
    """Of the kernel with the most knobs."""
    return Space(max(kernels_of(build, target), key=knobs(target)), target)


def results(
    function: tirx.PrimFunc, target: targets.Target, candidates: list[Decisions]
) -> list[np.ndarray]:
    """What the kernel computes by each of these decisions, of random inputs."""
    numbers = np.random.default_rng(0)
    shapes = [([int(size) for size in param.shape], str(param.dtype)) for param in function.params]
    arrays = [
        numbers.standard_normal(shape).astype(dtype)
        if dtype == "float32"
        else numbers.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape, dtype)
        for shape, dtype in shapes
    ]
    module = tvm.IRModule(
        {
            f"k{i}": schedule(function, target, Decided(each), strict=True).with_attr(
                "global_symbol", f"k{i}"
            )
            for i, each in enumerate(candidates)
        }
    )
    compiled = tvm.compile(module, tvm_target(target))
    found = []
    for i in range(len(candidates)):
        *inputs, output = map(tvm.runtime.tensor, arrays)
        compiled[f"k{i}"](*inputs, output)
        found.append(output.numpy())
    return found


@pytest.mark.parametrize("name", RUNNABLE[:-1])
@pytest.mark.parametrize("build", CASES)
def test_every_schedule_computes_the_same(build: Callable[[Model], None], name: str) -> None:
    """All that differ from the rule in one knob, and some at random."""
    target, rng = targets.resolve(name), random.Random(1)
    for function in kernels_of(build, target)[-2:]:
        space = Space(function, target)
        near = [each for each in space.neighbours({}) if each]
        if name != RUNNABLE[-2]:
            near = near[::4]
        far = [each for _ in range(3) if (each := space.sample(rng))]
        rule, *others = results(function, target, [{}, *near, *far])
        for decisions, other in zip([*near, *far], others, strict=True):
            np.testing.assert_allclose(other, rule, rtol=1e-4, atol=1e-4, err_msg=str(decisions))


@pytest.mark.parametrize("build", CASES)
def test_decisions_lead_back_to_themselves(build: Callable[[Model], None]) -> None:
    target = targets.resolve("x86-64-v3")
    function = max(kernels_of(build, target), key=knobs(target))
    space = Space(function, target)
    for decisions in itertools.islice(space.enumerate(), 30):
        scheduled = schedule(function, target, Decided(decisions), strict=True)
        assert tvm_ffi.structural_hash(scheduled) == space.structure(decisions)


def test_the_rule_is_the_empty_choice() -> None:
    target = targets.resolve("x86-64-v4")
    function = max(kernels_of(dense, target), key=knobs(target))
    space = Space(function, target)
    assert next(space.enumerate()) == space.rule() == {}
    rule = space.candidate({})
    assert rule is not None
    spelled = {choice.knob: choice.value for choice in rule.choices}
    assert spelled == {choice.knob: choice.rule for choice in rule.choices}
    assert space.candidate(spelled).decisions == {}
    assert tvm_ffi.structural_equal(
        schedule(function, target), schedule(function, target, Decided(spelled))
    )


def test_spaces_are_of_a_size_to_be_searched() -> None:
    """Enough to find something, and no candidate twice."""
    for name, build, least, most in (
        ("x86-64-v4", first_layer, 20, 400),
        ("x86-64-v3", depthwise, 8, 200),
        ("aarch64", product, 3, 300),
    ):
        target = targets.resolve(name)
        space = space_of(build, target)
        every = list(space.enumerate())
        assert least <= len(every) == space.size() <= most
        assert len({space.structure(each) for each in every}) == len(every)


def test_metaschedule_is_for_kernels_without_a_rule_of_their_own() -> None:
    """Its traces are options where a generic rule schedules, and compute the same."""
    target = targets.resolve(RUNNABLE[-2])
    kernels = kernels_of(averaged, target)
    for function in kernels:
        space = Space(function, target)
        every = list(space.enumerate())
        traces = [each for each in every if each.get(KNOB)]
        blocks = str(function.script())
        assert bool(traces) == ("conv2d" not in blocks)
        assert not any(problem_of(str(each[KNOB])) for each in traces)
        rule, *others = results(function, target, [{}, *traces[:12]])
        for other in others:
            np.testing.assert_allclose(other, rule, rtol=1e-4, atol=1e-5)
    assert "tvm.s_tir.tensor_intrin" not in sys.modules


def test_unknown_decisions_leave_the_rule() -> None:
    target = targets.resolve("x86-64-v4")
    space = space_of(dense, target)
    for strange in ({"blocks": 77}, {"none": 1}, {"columns": "wide"}):
        found = space.candidate(strange)
        assert found is not None
        assert found.decisions == {}


def test_features_tell_candidates_apart() -> None:
    target = targets.resolve("x86-64-v4")
    space = space_of(deep, target)
    every = list(itertools.islice(space.enumerate(), 60))
    features = {tuple(space.features(each)) for each in every}
    assert len(features) == len(every)
