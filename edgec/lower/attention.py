"""Attention without a cache: two products with a softmax between, every head a batch of them.

Whatever else the operator can do (past keys and values, causal masks, soft caps, shared heads, the
scores as an output) is left to the body that ONNX defines it by.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs
from tvm import relax

from edgec.lower.context import Context, literal
from edgec.lower.matmul import product
from edgec.lower.softmax import softmax_over

_PLAIN = {"scale", "q_num_heads", "kv_num_heads"}
_HEADS_FIRST = [0, 2, 1, 3]


def attention(ctx: Context, node: gs.Node, inputs: list[relax.Expr | None]) -> relax.Expr | None:
    """Softmax(scale * q k^T + mask) v; None where the node asks for more than that.

    q, k and v are [batch, heads, length, features], or [batch, length, heads * features] with the
    number of heads as an attribute; the mask is added to [batch, heads, queries, keys].
    """
    q, k, v, mask, *cache = [*inputs, None, None][:6]
    dtype = ctx.dtype(q)
    more = any(x is not None for x in cache) or len(inputs) > 6 or len(node.outputs) > 1
    if more or node.attrs.keys() - _PLAIN or dtype != "float32":
        return None
    if mask is not None and (ctx.dtype(mask), ctx.shape(mask)[-1]) != (dtype, ctx.shape(k)[-2]):
        return None
    flat = len(ctx.shape(q)) == 3
    if flat:
        heads = int(ctx.attr(node, "q_num_heads"))
        if heads != int(ctx.attr(node, "kv_num_heads")):
            return None
        q, k, v = (_split(ctx, x, heads) for x in (q, k, v))
    else:
        ctx.ignore("q_num_heads", "kv_num_heads")
    if ctx.shape(q)[1] != ctx.shape(k)[1]:
        return None
    scale = float(ctx.attr(node, "scale", ctx.shape(q)[-1] ** -0.5))
    scores = product(ctx, q, ctx.transpose(k, [0, 1, 3, 2]))
    if mask is None:
        scores = ctx.map("scale", lambda s: s * literal(scale, dtype), scores)
    else:
        scores = ctx.map("mask", lambda s, m: s * literal(scale, dtype) + m, scores, mask)
    y = product(ctx, softmax_over(ctx, scores, 3), v)
    if not flat:
        return y
    batch, _, length, features = ctx.shape(y)
    return ctx.reshape(ctx.transpose(y, _HEADS_FIRST), (batch, length, heads * features))


def _split(ctx: Context, x: relax.Expr, heads: int) -> relax.Expr:
    batch, length, features = ctx.shape(x)
    return ctx.transpose(ctx.reshape(x, (batch, length, heads, features // heads)), _HEADS_FIRST)


ENTRIES = {"Attention": attention}
