"""Transformer encoders, sequence length 128."""

from __future__ import annotations

import math

import numpy as np
import onnx

from nets.layers import Moments, RandomNet

LENGTH = 128
# Deviation of queries and keys: their scaled products have deviation 2, about as peaked as trained
# attention; unit ones would average nearly all of a sequence away.
ATTENTION_GAIN = math.sqrt(2)


class _Transformer(RandomNet):
    """A `RandomNet` with the parts of an encoder layer, on tensors [N, 128, features]."""

    def dims(self, x: str, *rest: int) -> str:
        """The shape [N, *rest] for a Reshape, N computed from the shape of `x`."""
        batch = self.op("Gather", self.op("Shape", x), self.constant(0, "int64"), axis=0)
        batch = self.op("Unsqueeze", batch, self.constant([0], "int64"))
        return self.op("Concat", batch, *(self.constant([d], "int64") for d in rest), axis=0)

    def attention(self, x: str, heads: int, name: str, mask: str | None = None) -> str:
        """Multi-head self-attention; `mask` [N, 1, 1, 128] is added to the scores."""
        features = self.channels(x)
        width = features // heads

        def split(kind: str, gain: float, perm: list[int]) -> str:
            y = self.linear(x, features, f"{name}.{kind}", gain)
            y = self.op("Reshape", y, self.dims(y, LENGTH, heads, width))
            return self.op("Transpose", y, perm=perm)

        query = split("query", ATTENTION_GAIN, [0, 2, 1, 3])
        key = split("key", ATTENTION_GAIN, [0, 2, 3, 1])
        value = split("value", 1, [0, 2, 1, 3])
        scores = self.op("Div", self.op("MatMul", query, key), self.constant(math.sqrt(width)))
        if mask is not None:
            scores = self.op("Add", scores, mask)
        context = self.op("MatMul", self.op("Softmax", scores, axis=-1), value)
        context = self.op("Transpose", context, perm=[0, 2, 1, 3])
        context = self.op("Reshape", context, self.dims(context, LENGTH, features))
        self.moments[context] = Moments(np.zeros(features), np.full(features, 0.4))
        return self.linear(context, features, f"{name}.output")

    def feed_forward(self, x: str, hidden: int, name: str) -> str:
        """Two `linear` layers with Gelu between."""
        y = self.gelu(self.linear(x, hidden, f"{name}.up"))
        return self.linear(y, self.channels(x), f"{name}.down")

    def layer_norm(self, x: str, name: str, epsilon: float, decomposed: bool) -> str:
        """LayerNormalization of the last axis, as one operator or as nine."""
        count = self.channels(x)
        scale = self._random.uniform(0.8, 1.2, count).astype(np.float32)
        shift = self.normal(count, deviation=0.1)
        weight = self.weight(f"{name}.weight", scale)
        bias = self.weight(f"{name}.bias", shift)
        if decomposed:
            centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
            square = self.op("Pow", centred, self.constant(2))
            variance = self.op("ReduceMean", square, axes=[-1])
            deviation = self.op("Sqrt", self.op("Add", variance, self.constant(epsilon)))
            scaled = self.op("Mul", self.op("Div", centred, deviation), weight)
            y = self.op("Add", scaled, bias, name=name)
        else:
            y = self.op("LayerNormalization", x, weight, bias, name=name, axis=-1, epsilon=epsilon)
        self.moments[y] = Moments(shift.astype(float), scale.astype(float) ** 2)
        return y

    def table(self, name: str, rows: int, features: int, deviation: float) -> str:
        """A weight [rows, features] to gather from."""
        weight = self.weight(name, self.normal(rows, features, deviation=deviation))
        self.moments[weight] = Moments(np.zeros(features), np.full(features, deviation**2))
        return weight


def bert_tiny() -> onnx.ModelProto:
    """BERT-tiny (Turc et al., 2019): 2 layers, 128 features, 2 heads, 30522 words.

    input_ids, attention_mask, token_type_ids: int64 [N,128] -> last_hidden_state [N,128,128],
    pooler_output [N,128]. LayerNormalization and Gelu operator by operator, shapes by Shape, Gather
    and Concat.
    """
    net = _Transformer("bert_tiny", "BERT-tiny, sequences of 128 tokens, random weights.")
    heads, features = 2, 128
    ids, mask, types = (
        net.input(name, ["N", LENGTH], "int64")
        for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    mask = net.op("Unsqueeze", mask, net.constant([1, 2], "int64"))
    mask = net.op("Sub", net.constant(1), net.op("Cast", mask, to=onnx.TensorProto.FLOAT))
    mask = net.op("Mul", mask, net.constant(np.finfo(np.float32).min))

    third = 3**-0.5
    words = net.table("embeddings.word", 30522, features, third)
    kinds = net.table("embeddings.type", 2, features, third)
    positions = net.table("embeddings.position", 512, features, third)
    x = net.add(
        net.derive(net.op("Gather", words, ids), words),
        net.derive(net.op("Gather", kinds, types), kinds),
    )
    places = net.constant(np.arange(LENGTH)[None], "int64")
    x = net.add(x, net.derive(net.op("Gather", positions, places), positions))
    x = net.layer_norm(x, "embeddings.norm", 1e-12, decomposed=True)
    for layer in range(2):
        name = f"layer{layer}"
        x = net.add(net.attention(x, heads, f"{name}.attention", mask), x)
        x = net.layer_norm(x, f"{name}.attention.norm", 1e-12, decomposed=True)
        x = net.add(net.feed_forward(x, 512, f"{name}.feed_forward"), x)
        last = f"{name}.norm" if layer == 0 else "last_hidden_state"
        x = net.layer_norm(x, last, 1e-12, decomposed=True)
    net.output(x, ["N", LENGTH, features])
    first = net.derive(net.op("Gather", x, net.constant(0, "int64"), axis=1), x)
    pooled = net.op("Tanh", net.gemm(first, features, "pooler"), name="pooler_output")
    net.output(pooled, ["N", features])
    return net.model()


def encoder() -> onnx.ModelProto:
    """Encoder of 6 layers, 384 features, 12 heads: tokens [N,128,384] -> encoded [N,128,384].

    The body of MiniLM-L6 (Wang et al., 2020), with LayerNormalization as one operator.
    """
    net = _Transformer("encoder", "Encoder 6x384, sequences of 128 vectors, random weights.")
    x = net.features("tokens", ["N", LENGTH, 384], axis=2)
    for layer in range(6):
        name = f"layer{layer}"
        x = net.add(net.attention(x, 12, f"{name}.attention"), x)
        x = net.layer_norm(x, f"{name}.attention.norm", 1e-12, decomposed=False)
        x = net.add(net.feed_forward(x, 1536, f"{name}.feed_forward"), x)
        last = f"{name}.norm" if layer < 5 else "encoded"
        x = net.layer_norm(x, last, 1e-12, decomposed=False)
    net.output(x, ["N", LENGTH, 384])
    return net.model()
