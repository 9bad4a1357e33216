"""Einsum written out, against ONNX Runtime and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgec.graph import load
from edgec.passes.convert_einsum import ConvertEinsum
from edgec.rewrite import optimize

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "i": 3, "j": 4, "k": 5, "l": 2}


def run(model: onnx.ModelProto, feed: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (result,) = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)
    return result


def assert_same(equation: str, *shapes: tuple[int, ...], named: bool = False) -> None:
    """The result is numpy's; with `named`, also where no size is known to the compiler."""
    rng = np.random.default_rng(4)
    feed = {f"x{i}": rng.standard_normal(shape) for i, shape in enumerate(shapes)}
    expected = np.einsum(equation, *feed.values())
    infos = [
        helper.make_tensor_value_info(
            name,
            TensorProto.DOUBLE,
            [f"{name}_{i}" for i in range(array.ndim)] if named else array.shape,
        )
        for name, array in feed.items()
    ]
    sizes = [f"y_{i}" for i in range(expected.ndim)] if named else expected.shape
    output = helper.make_tensor_value_info("y", TensorProto.DOUBLE, sizes)
    node = helper.make_node("Einsum", list(feed), ["y"], equation=equation)
    model = helper.make_model(
        helper.make_graph([node], "g", infos, [output]),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    graph = load(model, symbolic=True, assume_batch=False)
    (report,) = optimize(graph, [ConvertEinsum()])
    assert report.rewrites == 1, report.skips
    result = run(graph.to_source_opset(), feed)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)


def shapes_of(equation: str) -> list[tuple[int, ...]]:
    return [tuple(SIZES[k] for k in term) for term in equation.partition("->")[0].split(",")]


@pytest.mark.parametrize(
    "equation",
    [
        *("ij->ji", "ij->ij", "ij->i", "ij->", "ji", "ij", "i->", "i->i"),
        *("ij,jk->ik", "ij,jk", "ij,kj->ik", "ji,jk->ki", "ij,jk->ki", "ij,jk->", "ij,jk->j"),
        *("i,i->", "i,i->i", "i,j->ij", "i,j->ji", "i,j->", "i,ij->j", "ij,j->i", "ij,i->"),
        *("ij,ij->", "ij,ij->i", "ij,ij->ij", "ij,ji->ij", "ij,kl->ijkl", "ij,kl->likj"),
        *("bij,bjk->bik", "bij,bkj->bik", "bij,jk->bik", "bij,bjk->ik", "ij,bjk->bik"),
        *("abic,abjc->abij", "abjc,abic->abij", "acib,ajcb->aij", "aibj,ajbk->abik"),
        *("abij,ackj->abcik", "aij,ajkl->aikl", "ijk,jkl->il", "ijk,ljk->il", "aijk,ajkl->ail"),
        *("ij,jk,kl->il", "ij,jk,kl->", "i,j,k->kji", "ij,ij,ij->i", "ij,j,jk->ik", "a,ab,abc->c"),
        *("ij,kj,lj->ikl", "ijab,kab->ijk", "abij,j->abi", "aij,bij->ab", "b,cd->bcd"),
    ],
)
def test_equations(equation: str) -> None:
    assert_same(equation, *shapes_of(equation))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ii->i", [(3, 3)]),
        ("ii->", [(3, 3)]),
        ("ii", [(3, 3)]),
        ("iij->ij", [(3, 3, 2)]),
        ("iji->ji", [(3, 2, 3)]),
        ("iii->i", [(3, 3, 3)]),
        ("iijj->ij", [(3, 3, 2, 2)]),
        ("ii,ij->j", [(3, 3), (3, 2)]),
        ("ij,jj->i", [(2, 3), (3, 3)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (1, 6, 4, 5)]),
        ("...ij,jk->...ik", [(2, 6, 3, 4), (4, 5)]),
        ("ij,...jk->...ik", [(3, 4), (2, 6, 4, 5)]),
        ("i...,i...->...", [(3, 2, 4), (3, 2, 4)]),
        ("...i,...i", [(2, 3), (2, 3)]),
        ("...,...->...", [(2, 1), (1, 3)]),
        ("b...i,ij->b...j", [(2, 5, 6, 3), (3, 4)]),
        ("...->...", [(2, 3)]),
        (" i j , j k -> i k ", [(2, 3), (3, 4)]),
    ],
)
def test_diagonals_and_ellipses(equation: str, shapes: list[tuple[int, ...]]) -> None:
    assert_same(equation, *shapes)


@pytest.mark.parametrize(
    "equation",
    ["ij->ji", "ij->i", "i,j->ij", "bij,bjk->bik", "bij,jk->bik", "abic,abjc->abij", "i,i->"],
)
def test_unknown_sizes(equation: str) -> None:
    assert_same(equation, *shapes_of(equation), named=True)
