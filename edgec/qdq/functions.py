"""Functions of single elements in float64, by the names ONNX has for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Attributes = Mapping[str, Any]
Function = Callable[..., Array]
"""From attributes and operands that broadcast, float64, to float64."""


def _each(function: Callable[[float], float]) -> Callable[[Array], Array]:
    return np.vectorize(function, otypes=[np.float64])


_erf = _each(math.erf)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def _gelu(at: Attributes, x: Array) -> Array:
    if at.get("approximate", "none") == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + _erf(x * math.sqrt(0.5))))


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x < 0, alpha * np.expm1(x), x)


def _clip(at: Attributes, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    above = x if low is None else np.maximum(x, low)
    return above if high is None else np.minimum(above, high)


def _selu(at: Attributes, x: Array) -> Array:
    alpha = at.get("alpha", 1.67326319217681884765625)
    return np.asarray(at.get("gamma", 1.05070102214813232421875) * _elu(x, alpha))


def _celu(at: Attributes, x: Array) -> Array:
    alpha = at.get("alpha", 1.0)
    return np.where(x < 0, alpha * np.expm1(x / alpha), x)


def _leaky(at: Attributes, x: Array) -> Array:
    return np.where(x < 0, at.get("alpha", 0.01) * x, x)


def _of(function: Callable[..., Array]) -> Function:
    """An operator without attributes."""
    return lambda at, *operands: function(*operands)


FUNCTIONS: Mapping[str, Function] = {
    "Abs": _of(np.abs),
    "Add": _of(np.add),
    "Atan": _of(np.arctan),
    "Ceil": _of(np.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _of(np.cos),
    "Div": _of(np.divide),
    "Elu": lambda at, x: _elu(x, at.get("alpha", 1.0)),
    "Erf": _of(_erf),
    "Exp": _of(np.exp),
    "Floor": _of(np.floor),
    "Gelu": _gelu,
    "HardSigmoid": lambda at, x: _hard_sigmoid(x, at.get("alpha", 0.2), at.get("beta", 0.5)),
    "HardSwish": _of(lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5)),
    "LeakyRelu": _leaky,
    "Log": _of(np.log),
    "Max": _of(lambda *x: np.max(np.broadcast_arrays(*x), axis=0)),
    "Min": _of(lambda *x: np.min(np.broadcast_arrays(*x), axis=0)),
    "Mish": _of(lambda x: x * np.tanh(_softplus(x))),
    "Mul": _of(np.multiply),
    "Neg": _of(np.negative),
    "Pow": _of(np.power),
    "Reciprocal": _of(lambda x: 1 / x),
    "Relu": _of(lambda x: np.maximum(x, 0)),
    "Round": _of(np.rint),
    "Selu": _selu,
    "Sigmoid": _of(_sigmoid),
    "Sign": _of(np.sign),
    "Sin": _of(np.sin),
    "Softplus": _of(_softplus),
    "Softsign": _of(lambda x: x / (1 + np.abs(x))),
    "Sqrt": _of(np.sqrt),
    "Sub": _of(np.subtract),
    "Swish": lambda at, x: x * _sigmoid(at.get("alpha", 1.0) * x),
    "Tanh": _of(np.tanh),
    "ThresholdedRelu": lambda at, x: np.where(x > at.get("alpha", 1.0), x, 0.0),
}
"""Whatever the rank of their operands, each result depends on elements at its own place alone."""
