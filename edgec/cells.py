"""One time step of LSTM, GRU and RNN, in primitive operators.

After ONNX's definitions of the three: rows of weights are in the order of its gates (iofc of LSTM,
zrh of GRU), peepholes in the order iof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgec.rewrite import Skip
from edgec.tensors import Node

Write = Callable[..., list[gs.Tensor]]
"""Writes an operator: (op, inputs, outputs=1, **attributes) -> what it makes. An input that is a
number or an array is a constant."""

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {
    "RNN": ("Tanh",),
    "GRU": ("Sigmoid", "Tanh"),
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
}
# What activation_alpha and activation_beta are where they are not given; None where ONNX does not
# say, or ONNX Runtime takes another value than it says.
_ALPHA = {
    "Affine": None,
    "Elu": 1.0,
    "HardSigmoid": 0.2,
    "LeakyRelu": 0.01,
    "ScaledTanh": None,
    "ThresholdedRelu": None,
}
_BETA = {"Affine": None, "HardSigmoid": 0.5, "ScaledTanh": None}
_PLAIN = ("Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")


@dataclass(frozen=True)
class Activation:
    """An activation function of a cell, by ONNX's name."""

    name: str
    parameters: Mapping[str, float]

    def __call__(self, write: Write, x: gs.Tensor) -> gs.Tensor:
        if self.name not in ("Affine", "ScaledTanh"):
            return write(self.name, [x], **self.parameters)[0]
        alpha, beta = self.parameters["alpha"], self.parameters["beta"]
        if self.name == "Affine":
            [x] = write("Mul", [x, alpha])
            return write("Add", [x, beta])[0]
        [x] = write("Mul", [x, beta])
        [x] = write("Tanh", [x])
        return write("Mul", [x, alpha])[0]


def activations(node: Node, directions: int) -> list[list[Activation]]:
    """The functions of each direction of `node`. Skips where one or its parameters are unknown.

    The given parameters go to the functions that take them, in order, whatever the direction.
    """
    functions = {name.lower(): name for name in (*_ALPHA, *_PLAIN)}
    names = node.attrs.get("activations") or list(_DEFAULTS[node.op]) * directions
    alphas = iter(node.attrs.get("activation_alpha", ()))
    betas = iter(node.attrs.get("activation_beta", ()))
    found = []
    for given in names:
        name = functions.get(given.lower())
        if name is None:
            raise Skip(f"there is no activation {given}")
        parameters = {}
        for parameter, values, defaults in (("alpha", alphas, _ALPHA), ("beta", betas, _BETA)):
            if name in defaults:
                value = next(values, defaults[name])
                if value is None:
                    raise Skip(f"the {parameter} of {name} is not given")
                parameters[parameter] = value
        found.append(Activation(name, parameters))
    count = len(_DEFAULTS[node.op])
    if len(found) != count * directions:
        raise Skip(f"it names {len(found)} activations of {count * directions}")
    return [found[i * count : (i + 1) * count] for i in range(directions)]


@dataclass(frozen=True)
class Cell:
    """What one direction computes in each step.

    Attributes:
        op: LSTM, GRU or RNN.
        hidden: H, the length of the state.
        functions: its activations, as many as the operator has.
        clip: what bounds the inputs of the activations, or 0. It does not bound the cell state of
            LSTM, which the last activation sees: so ONNX Runtime reads the standard.
        coupled: whether LSTM forgets as much as it does not take in.
        recurrent: what the state is multiplied with, [H, gates * H]; of a GRU that resets the state
            first, [H, 2 H] and [H, H].
        bias: of the recurrent product [gates * H], where it is not in that of the input already: of
            a GRU that resets the product.
        peepholes: three of [H], or none.
    """

    op: str
    hidden: int
    functions: Sequence[Activation]
    clip: float
    coupled: bool
    recurrent: Sequence[gs.Tensor]
    bias: gs.Tensor | None
    peepholes: Sequence[gs.Tensor]

    def step(self, write: Write, x: gs.Tensor, state: Sequence[gs.Tensor]) -> list[gs.Tensor]:
        """The next state (h, and c of LSTM); `x` is the input times its weights, and the bias."""
        if self.op == "LSTM":
            return self._lstm(write, x, *state)
        return self._gru(write, x, *state) if self.op == "GRU" else self._rnn(write, x, *state)

    def _rnn(self, write: Write, x: gs.Tensor, h: gs.Tensor) -> list[gs.Tensor]:
        return [self._activate(write, 0, self._with_state(write, x, h))]

    def _gru(self, write: Write, x: gs.Tensor, h: gs.Tensor) -> list[gs.Tensor]:
        x_gates, x_new = self._split(write, x, 2, 1)
        if len(self.recurrent) == 1:
            [product] = write("MatMul", [h, self.recurrent[0]])
            if self.bias is not None:
                [product] = write("Add", [product, self.bias])
            h_gates, h_new = self._split(write, product, 2, 1)
            [gates] = write("Add", [x_gates, h_gates])
            update, reset = self._split(write, self._activate(write, 0, gates), 1, 1)
            [h_new] = write("Mul", [reset, h_new])
        else:
            gates = self._with_state(write, x_gates, h)
            update, reset = self._split(write, self._activate(write, 0, gates), 1, 1)
            [kept] = write("Mul", [reset, h])
            [h_new] = write("MatMul", [kept, self.recurrent[1]])
        [new] = write("Add", [x_new, h_new])
        new = self._activate(write, 1, new)
        [difference] = write("Sub", [h, new])
        [moved] = write("Mul", [update, difference])
        return write("Add", [new, moved])

    def _lstm(self, write: Write, x: gs.Tensor, h: gs.Tensor, c: gs.Tensor) -> list[gs.Tensor]:
        gates = self._with_state(write, x, h)
        take, give, forget, new = self._split(write, gates, 1, 1, 1, 1)
        take = self._activate(write, 0, self._peep(write, take, 0, c))
        if self.coupled:
            [forget] = write("Sub", [1.0, take])
        else:
            forget = self._activate(write, 0, self._peep(write, forget, 2, c))
        [kept] = write("Mul", [forget, c])
        [taken] = write("Mul", [take, self._activate(write, 1, new)])
        [c] = write("Add", [kept, taken])
        give = self._activate(write, 0, self._peep(write, give, 1, c))
        [h] = write("Mul", [give, self.functions[2](write, c)])
        return [h, c]

    def _with_state(self, write: Write, x: gs.Tensor, h: gs.Tensor) -> gs.Tensor:
        [product] = write("MatMul", [h, self.recurrent[0]])
        return write("Add", [x, product])[0]

    def _peep(self, write: Write, gate: gs.Tensor, which: int, c: gs.Tensor) -> gs.Tensor:
        if not self.peepholes:
            return gate
        [seen] = write("Mul", [self.peepholes[which], c])
        return write("Add", [gate, seen])[0]

    def _activate(self, write: Write, which: int, x: gs.Tensor) -> gs.Tensor:
        if self.clip:
            [x] = write("Clip", [x, -self.clip, self.clip])
        return self.functions[which](write, x)

    def _split(self, write: Write, x: gs.Tensor, *parts: int) -> list[gs.Tensor]:
        sizes: Any = np.array([part * self.hidden for part in parts], np.int64)
        return write("Split", [x, sizes], outputs=len(parts), axis=-1)
