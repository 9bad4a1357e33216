"""Features for classical models: selection, thresholds, counts of n-grams."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from tvm import relax, te, tirx

from edgec.lower.context import Context, Refused, literal, select
from edgec.lower.index import position
from edgec.lower.loops import Loops


def array_feature_extractor(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    """Columns of the last axis, picked by all of the indices; a vector is taken for one row."""
    x, indices = inputs
    *lead, size = ctx.shape(x)
    rows, count = lead or [1], prod(ctx.shape(indices))

    def compute(data: te.Tensor, where: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            return data(*i[: len(lead)], position(where(i[-1]), size))

        return te.compute((*rows, count), element, name="columns")

    return ctx.te("columns", compute, x, ctx.reshape(indices, (count,)))


def binarizer(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    (x,) = inputs
    dtype = ctx.dtype(x)
    limit = literal(ctx.attr(node, "threshold", 0.0), dtype)
    one, zero = literal(1, dtype), literal(0, dtype)
    return ctx.map("binarizer", lambda v: select(v > limit, one, zero), x)


def tf_idf_vectorizer(ctx: Context, node: gs.Node, inputs: list[relax.Expr]) -> relax.Expr:
    """How often each n-gram of the pool occurs in a row of integers, weighted."""
    (x,) = inputs
    *rows, length = ctx.shape(x)
    weights, mode = ctx.attr(node, "weights"), ctx.attr(node, "mode")
    skips = int(ctx.attr(node, "max_skip_count")) + 1
    places = [int(i) for i in ctx.attr(node, "ngram_indexes")]
    width = max(places, default=-1) + 1
    if len(rows) > 1 or width < 1 or mode not in ("TF", "IDF", "TFIDF"):
        raise Refused(f"mode={mode!r} over {ctx.shape(x)} is not lowered")
    if weights is not None and not len(weights) == len(places) == len(set(places)):
        raise Refused("its weights are not one for each column")
    pool = _pool(ctx, node)
    batch = prod(rows)
    constants = [ctx.const(part) for size in pool for part in pool[size]]

    def body(loops: Loops, data: Any, *buffers: Any) -> None:
        *tables, out = buffers
        with loops.over((batch, width)) as i:
            out[i] = literal(0, "float32")
        for size, grams, columns in zip(pool, tables[::2], tables[1::2], strict=True):
            distances = 1 if size == 1 else skips
            with loops.over((batch, grams.shape[0], distances, length)) as (row, g, skip, at):
                last = at + (skip + 1) * (size - 1)
                equal = [
                    data[row, position(at + (skip + 1) * k, length)].astype("int64") == grams[g, k]
                    for k in range(size)
                ]
                with loops.when(tirx.all(last < length, *equal)):
                    out[row, columns[g]] = out[row, columns[g]] + literal(1, "float32")

    data = ctx.reshape(x, (batch, length))
    counts = ctx.loops("n_grams", body, [data, *constants], [((batch, width), "float32")])
    counts = ctx.reshape(counts, (*rows, width))
    if mode == "TF" or (mode == "TFIDF" and weights is None):
        return counts
    share = np.ones(width, np.float32)
    share[places] = 1.0 if weights is None else weights
    factor = ctx.const(share)
    if mode == "TFIDF":
        return ctx.map("weighted", lambda n, w: n * w, counts, factor)
    zero = literal(0, "float32")
    return ctx.map("weighted", lambda n, w: select(n > zero, w, zero), counts, factor)


def _pool(ctx: Context, node: gs.Node) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The n-grams to look for and the column that counts each, by size."""
    values = ctx.attr(node, "pool_int64s")
    if values is None or ctx.attr(node, "pool_strings"):
        raise Refused("n-grams of strings are not lowered")
    starts = [int(n) for n in ctx.attr(node, "ngram_counts")]
    low, high = int(ctx.attr(node, "min_gram_length")), int(ctx.attr(node, "max_gram_length"))
    columns = iter(int(i) for i in ctx.attr(node, "ngram_indexes"))
    pool: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for size, (start, end) in enumerate(zip(starts, [*starts[1:], len(values)], strict=True), 1):
        grams = {tuple(values[at : at + size]): next(columns, -1) for at in range(start, end, size)}
        if any(len(g) != size for g in grams) or min(grams.values(), default=0) < 0:
            raise Refused("its pool of n-grams is not complete")
        if grams and low <= size <= high:
            pool[size] = np.array(list(grams), np.int64), np.array(list(grams.values()), np.int64)
    return pool


ENTRIES = {
    "ai.onnx.ml.ArrayFeatureExtractor": array_feature_extractor,
    "ai.onnx.ml.Binarizer": binarizer,
    "TfIdfVectorizer": tf_idf_vectorizer,
}
