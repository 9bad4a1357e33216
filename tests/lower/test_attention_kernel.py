"""Attention as one kernel: where scores, their softmax and its product with the values join."""

from __future__ import annotations

import numpy as np

from edgec import targets
from edgec.graph import load
from edgec.lower.lowering import lower_graph
from edgec.targets.cpu import schedule

from .many_nodes import Model

SIZE = (1, 2, 8, 8)
"""Of every operand: equal sizes on the axes that could be taken for one another."""


def attention(m: Model, *, axis: int = -1, values: tuple[int, ...] = SIZE) -> tuple[str, str]:
    """The names of the weights and of the result."""
    scores = m.node("MatMul", m.input(*SIZE), m.input(*SIZE))
    halved = m.node("Mul", scores, m.constant(np.float32(0.5)))
    weights = m.node("Softmax", halved, axis=axis)
    return weights, m.node("MatMul", weights, m.input(*values))


def kernels(m: Model) -> list[str]:
    """The names of its kernels, each of which a rule schedules to the end."""
    target = targets.resolve("x86-64-v4")
    found = lower_graph(load(m.expected()[0]), "m", [], target).kernels
    for kernel in found.values():
        schedule(kernel, target, strict=True)
    return [name.removeprefix("fused_") for name in found]


def test_all_of_it_is_one_kernel() -> None:
    m = Model()
    m.out(m.node("Relu", attention(m)[1]))
    assert kernels(m) == ["matmul_multiply_softmax_matmul_relu"]


def test_a_softmax_of_anything_joins_the_product_it_weights() -> None:
    m = Model()
    m.out(m.node("MatMul", m.node("Softmax", m.input(*SIZE), axis=-1), m.input(*SIZE)))
    assert kernels(m) == ["softmax_matmul"]


def test_scores_alone_stay_apart_from_their_softmax() -> None:
    m = Model()
    scores = m.node("MatMul", m.input(*SIZE), m.input(*SIZE))
    m.out(m.node("Softmax", scores, axis=-1))
    assert len(kernels(m)) == 2


def test_weights_that_are_an_output_too_are_written() -> None:
    m = Model()
    m.out(*attention(m))
    assert len(kernels(m)) == 3


def test_a_softmax_over_queries_stays_apart() -> None:
    m = Model()
    m.out(attention(m, axis=2)[1])
    assert not any(name.endswith("softmax_matmul") for name in kernels(m))


def test_values_may_be_shared_by_heads() -> None:
    m = Model()
    m.out(attention(m, values=(8, 8))[1])
    assert len(kernels(m)) == 1


def test_weights_as_the_right_operand_stay_apart() -> None:
    m = Model()
    m.out(m.node("MatMul", m.input(*SIZE), m.node("Softmax", m.input(*SIZE), axis=-1)))
    assert len(kernels(m)) == 2
