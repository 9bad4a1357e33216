"""Ensembles of decision trees (ai.onnx.ml): every row of features descends every tree.

A node's child is its number, or the complement of its leaf's number. What a node accepts is a set
of relations of the feature to its threshold; a test for membership becomes a chain of equalities.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, tirx

from edgec.lower.context import Context, Refused, literal, select
from edgec.lower.elementwise import maximum, minimum
from edgec.lower.loops import Loops

_LESS, _EQUAL, _GREATER, _UNORDERED = 1, 2, 4, 8
_ACCEPTED = (
    _LESS | _EQUAL,
    _LESS,
    _GREATER | _EQUAL,
    _GREATER,
    _EQUAL,
    _LESS | _GREATER | _UNORDERED,
)
_MEMBER = 6
_AGGREGATES = ("average", "sum", "min", "max")


@dataclass
class _Nodes:
    """Inner nodes by number, as lists that grow."""

    feature: list[int]
    threshold: list[float]
    accepts: list[int]
    yes: list[int]
    no: list[int]


def tree_ensemble(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    """Y[N, targets] of X[N, F]: the weights of the leaves reached, per target; 0 for none."""
    (x,) = inputs
    ctx.ignore("nodes_hitrates")
    dtype = ctx.dtype(x)
    rows, columns = ctx.shape(x)
    targets = int(ctx.attr(node, "n_targets"))
    way = _AGGREGATES[int(ctx.attr(node, "aggregate_function", 1))]
    if ctx.attr(node, "post_transform", 0):
        raise Refused("a post_transform is not lowered")
    weights = np.asarray(ctx.attr(node, "leaf_weights").values)
    places = np.asarray(ctx.attr(node, "leaf_targetids"), np.int64)
    nodes = _nodes(ctx, node)
    roots = [int(r) for r in ctx.attr(node, "tree_roots")]
    _check(nodes, roots, len(weights), columns)
    _split_members(ctx, node, nodes)
    if len(places) != len(weights) or not all(0 <= p < targets for p in places):
        raise Refused("a leaf's target is not one of the outputs")
    share = weights / len(roots) if way == "average" else weights
    combine = {"min": minimum, "max": maximum}.get(way, lambda a, b: a + b)
    tables = [
        ctx.const(np.asarray(values), kind)
        for values, kind in (
            (nodes.feature, "int64"),
            (nodes.threshold, dtype),
            (nodes.accepts, "int32"),
            (nodes.yes, "int64"),
            (nodes.no, "int64"),
            (roots, "int64"),
            (share, dtype),
            (places, "int64"),
        )
    ]

    def body(loops: Loops, data: Any, *buffers: Any) -> None:
        feature, threshold, accepts, yes, no, root, weight, place, out = buffers
        at, leaf = loops.local("int64"), loops.local("int64")
        reached = loops.array((targets,), "bool")
        zero = literal(0, "int64")
        with loops.over((rows,)) as (row,):
            with loops.over((targets,)) as (target,):
                out[row, target] = literal(0, dtype)
                reached[target] = literal(False, "bool")
            with loops.over((len(roots),)) as (tree,):
                at[0] = root[tree]
                with loops.while_(at[0] >= zero):
                    here = tirx.max(at[0], zero)
                    found = _relation(data[row, feature[here]], threshold[here])
                    accepted = tirx.bitwise_and(found, accepts[here]) != literal(0, "int32")
                    at[0] = select(accepted, yes[here], no[here])
                leaf[0] = tirx.max(tirx.bitwise_not(at[0]), zero)
                target, gain = place[leaf[0]], weight[leaf[0]]
                both = combine(out[row, target], gain)
                out[row, target] = select(reached[target], both, gain)
                reached[target] = literal(True, "bool")

    return ctx.loops("trees", body, [x, *tables], [((rows, targets), dtype)])


def _relation(value: Any, threshold: Any) -> Any:
    less, equal, greater, unordered = (literal(1 << k, "int32") for k in range(4))
    ordered = select(value == threshold, equal, select(value > threshold, greater, unordered))
    return select(value < threshold, less, ordered)


def _nodes(ctx: Context, node: gs.Node) -> _Nodes:
    """The nodes as the attributes give them, membership spelled out."""
    modes = [int(m) for m in ctx.attr(node, "nodes_modes").values]
    count = len(modes)
    missing = list(ctx.attr(node, "nodes_missing_value_tracks_true") or [0] * count)
    sides = [
        [
            ~int(to) if leaf else int(to)
            for to, leaf in zip(
                ctx.attr(node, f"nodes_{side}nodeids"),
                ctx.attr(node, f"nodes_{side}leafs"),
                strict=True,
            )
        ]
        for side in ("true", "false")
    ]
    nodes = _Nodes(
        [int(f) for f in ctx.attr(node, "nodes_featureids")],
        [float(s) for s in ctx.attr(node, "nodes_splits").values],
        [(_ACCEPTED[m] if m < _MEMBER else _EQUAL) for m in modes],
        *sides,
    )
    if {len(column) for column in (*vars(nodes).values(), missing)} != {count}:
        raise Refused("its lists of nodes have different lengths")
    for k, tracks in enumerate(missing):
        nodes.accepts[k] |= _UNORDERED if tracks else 0
    return nodes


def _split_members(ctx: Context, node: gs.Node, nodes: _Nodes) -> None:
    """Spell out each test for membership: its values are listed in order of the nodes, NaN last."""
    members = ctx.attr(node, "membership_values")
    values = iter([] if members is None else members.values.tolist())
    for k, mode in enumerate(ctx.attr(node, "nodes_modes").values):
        if mode == _MEMBER:
            _chain(nodes, k, list(takewhile(lambda v: not np.isnan(v), values)))


def _chain(nodes: _Nodes, k: int, members: list[float]) -> None:
    """Make node `k` ask for one of `members` after the other."""
    if not members:
        nodes.accepts[k] &= ~_EQUAL
        return
    nodes.threshold[k] = members[0]
    for member in members[1:]:
        end = len(nodes.feature)
        nodes.feature.append(nodes.feature[k])
        nodes.threshold.append(member)
        nodes.accepts.append(_EQUAL)
        nodes.yes.append(nodes.yes[k])
        nodes.no.append(nodes.no[k])
        nodes.no[k], k = end, end


def _check(nodes: _Nodes, roots: list[int], leaves: int, columns: int) -> None:
    """Raise Refused unless every descent stays inside the lists and ends at a leaf."""
    count = len(nodes.feature)
    if not roots or not all(0 <= f < columns for f in nodes.feature):
        raise Refused("its trees ask for features that are not there")
    for root in roots:
        pending, left = [root], count
        while pending:
            at = pending.pop()
            left -= at >= 0
            if left < 0 or not -leaves <= at < count:
                raise Refused("its nodes do not form trees")
            if at >= 0:
                pending += [nodes.yes[at], nodes.no[at]]


ENTRIES = {"ai.onnx.ml.TreeEnsemble": tree_ensemble}
