"""Recurrent keyword models."""

from __future__ import annotations

import numpy as np
import onnx

from nets.layers import Moments, RandomNet

CLASSES = 12
# Variance of the state of a cell whose gates see sums of unit variance, as measured.
STATE_VARIANCE = 0.2


def gru_keyword() -> onnx.ModelProto:
    """Two GRU layers over a whole utterance: mfcc [N,49,10] -> logits [N,12]."""
    net = RandomNet("gru_keyword", "GRU keyword spotting, 12 words, random weights.")
    mfcc = net.features("mfcc", ["N", 49, 10], axis=2)
    x = net.derive(net.op("Transpose", mfcc, perm=[1, 0, 2]), mfcc)
    for number in (1, 2):
        weights = _cell_weights(net, x, f"gru{number}", gates=3, hidden=64)
        steps = net.op(
            "GRU", x, *weights, name=f"gru{number}", hidden_size=64, linear_before_reset=1
        )
        x = _state(net, net.op("Squeeze", steps, net.constant([1], "int64")), 64)
    last = _state(net, net.op("Gather", x, net.constant(-1, "int64"), axis=0), 64)
    net.output(net.gemm(last, CLASSES, "logits"), ["N", CLASSES])
    return net.model()


def lstm_keyword() -> onnx.ModelProto:
    """One LSTM layer, for streaming: ten frames at a time, the state handed on by the caller.

    frames [N,10,40], h [1,N,128], c [1,N,128] -> logits [N,12], h_next [1,N,128], c_next [1,N,128].
    """
    net = RandomNet("lstm_keyword", "Streaming LSTM keyword spotting, 12 words, random weights.")
    frames = net.features("frames", ["N", 10, 40], axis=2)
    h, c = (net.input(name, [1, "N", 128]) for name in ("h", "c"))
    x = net.derive(net.op("Transpose", frames, perm=[1, 0, 2]), frames)
    weights = _cell_weights(net, x, "lstm", gates=4, hidden=128)
    _, h_next, c_next = net.ops(
        "LSTM",
        x,
        *weights,
        "",
        h,
        c,
        outputs=["", "h_next", "c_next"],
        name="lstm",
        hidden_size=128,
    )
    last = _state(net, net.op("Squeeze", h_next, net.constant([0], "int64")), 128)
    net.output(net.gemm(last, CLASSES, "logits"), ["N", CLASSES])
    for state in (h_next, c_next):
        net.output(state, [1, "N", 128])
    return net.model()


def _cell_weights(net: RandomNet, x: str, name: str, *, gates: int, hidden: int) -> list[str]:
    """W [1, gates*hidden, inputs], R [1, gates*hidden, hidden] and B [1, 2*gates*hidden]."""
    inputs, variance = net.channels(x), net.moments[x].variance.mean()
    rows = gates * hidden
    return [
        net.weight(f"{name}.W", net.normal(1, rows, inputs, deviation=(inputs * variance) ** -0.5)),
        net.weight(f"{name}.R", net.normal(1, rows, hidden, deviation=hidden**-0.5)),
        net.weight(f"{name}.B", net.normal(1, 2 * rows, deviation=0.1)),
    ]


def _state(net: RandomNet, tensor: str, hidden: int) -> str:
    net.moments[tensor] = Moments(np.zeros(hidden), np.full(hidden, STATE_VARIANCE))
    return tensor
