"""Layers that draw their own weights, scaled so that activations keep unit variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from nets.writer import Net

# Points of a standard normal variable and the share of its values near each.
_POINTS = np.linspace(-6, 6, 1001)
_SHARES = np.exp(-(_POINTS**2) / 2)
_SHARES /= _SHARES.sum()

# Pixels in the last layers of a convolutional network share most of what they see: the average of
# 25 to 125 of them varies about as much as that of this many independent ones (as measured).
POOLED_PIXELS = 12


class Moments(NamedTuple):
    """Expected mean and variance of each channel (or feature) of a tensor: float64 [channels]."""

    mean: np.ndarray
    variance: np.ndarray

    def through(self, function: Callable[[np.ndarray], np.ndarray]) -> Moments:
        """The moments of `function` of a normal variable with these moments."""
        values = function(self.mean[:, None] + np.sqrt(self.variance)[:, None] * _POINTS)
        mean = (values * _SHARES).sum(1)
        return Moments(mean, (values**2 * _SHARES).sum(1) - mean**2)


class RandomNet(Net):
    """A `Net` with layers of random weights.

    `moments` says what to expect of each tensor, its elements taken as independent and normal.
    Weights have variance 1 / (fan in * variance of the input), after LeCun et al., "Efficient
    BackProp" (1998), so a product has unit variance. What the mean of the input adds to it is kept
    out, or the outputs of a deep network would hardly depend on its input: weights sum to zero over
    the input channels, and the bias, or the running mean of the BatchNormalization that follows,
    takes away the rest, as training would do.
    """

    def __init__(self, name: str, doc: str, seed: int = 0) -> None:
        super().__init__(name, doc)
        self.moments: dict[str, Moments] = {}
        # RandomState, not Generator: numpy promises that its stream, so these files, never change.
        self._random = np.random.RandomState(seed)

    def normal(self, *shape: int, deviation: float = 1.0) -> np.ndarray:
        """Normal values around 0: float32 [*shape]."""
        return (self._random.standard_normal(shape) * deviation).astype(np.float32)

    def features(self, name: str, shape: Sequence[int | str], axis: int = 1) -> str:
        """Declare a float32 input, expected to be standard normal, with its channels on `axis`."""
        count = int(shape[axis])
        self.moments[name] = Moments(np.zeros(count), np.ones(count))
        return self.input(name, shape)

    def channels(self, x: str) -> int:
        """The number of channels of `x`."""
        return len(self.moments[x].mean)

    def conv(
        self,
        x: str,
        channels: int,
        kernel: int | tuple[int, int],
        *,
        name: str,
        stride: int = 1,
        pads: Sequence[int] | None = None,
        group: int = 1,
        bias: bool = False,
    ) -> str:
        """Conv; `pads` is half the kernel on every side unless given."""
        window = (kernel, kernel) if isinstance(kernel, int) else kernel
        weight, moments = self._draw(x, (channels, self.channels(x) // group, *window), group)
        inputs = [x, self.weight(f"{name}.weight", weight)]
        if bias:
            vector, moments = self._bias(name, moments)
            inputs.append(vector)
        y = self.op(
            "Conv",
            *inputs,
            name=name,
            dilations=[1, 1],
            group=group,
            kernel_shape=window,
            pads=pads or [size // 2 for size in window] * 2,
            strides=[stride, stride],
        )
        self.moments[y] = moments
        return y

    def up_conv(self, x: str, channels: int, *, name: str) -> str:
        """ConvTranspose, 2x2 at stride 2, with bias: height and width double."""
        # Each output pixel sees one of the four taps: four times as many outputs of one tap each.
        weight, moments = self._draw(x, (channels * 4, self.channels(x)))
        weight = weight.reshape(channels, 2, 2, -1).transpose(3, 0, 1, 2)
        moments = Moments(*(values.reshape(channels, 4).mean(1) for values in moments))
        bias, moments = self._bias(name, moments)
        y = self.op(
            "ConvTranspose",
            x,
            self.weight(f"{name}.weight", weight),
            bias,
            name=name,
            dilations=[1, 1],
            group=1,
            kernel_shape=[2, 2],
            pads=[0, 0, 0, 0],
            strides=[2, 2],
        )
        self.moments[y] = moments
        return y

    def batch_norm(self, x: str, name: str) -> str:
        """BatchNormalization whose running statistics are the expected ones."""
        mean, variance = self.moments[x]
        count = len(mean)
        scale = self._random.uniform(0.8, 1.2, count).astype(np.float32)
        shift = self.normal(count, deviation=0.2)
        parts = {
            "weight": scale,
            "bias": shift,
            "running_mean": mean.astype(np.float32),
            "running_var": variance.astype(np.float32),
        }
        inputs = [self.weight(f"{name}.{part}", value) for part, value in parts.items()]
        y = self.op(
            "BatchNormalization", x, *inputs, name=name, epsilon=1e-5, momentum=0.9, training_mode=0
        )
        self.moments[y] = Moments(shift.astype(float), scale.astype(float) ** 2)
        return y

    def gemm(self, x: str, features: int, name: str) -> str:
        """Gemm of [N, n] with the weight as [features, n] and a bias."""
        weight, moments = self._draw(x, (features, self.channels(x)))
        bias, moments = self._bias(name, moments)
        matrix = self.weight(f"{name}.weight", weight)
        y = self.op("Gemm", x, matrix, bias, name=name, alpha=1.0, beta=1.0, transB=1)
        self.moments[y] = moments
        return y

    def linear(self, x: str, features: int, name: str, gain: float = 1.0) -> str:
        """MatMul and Add on the last axis of `x`; the result's deviation is `gain`."""
        weight, moments = self._draw(x, (features, self.channels(x)))
        matrix = self.weight(f"{name}.weight", weight.T * np.float32(gain))
        product = self.op("MatMul", x, matrix, name=f"{name}.matmul")
        scaled = Moments(moments.mean * gain, moments.variance * gain**2)
        bias, moments = self._bias(name, scaled)
        y = self.op("Add", bias, product, name=name)
        self.moments[y] = moments
        return y

    def relu(self, x: str) -> str:
        """Relu."""
        return self.derive(self.op("Relu", x), x, lambda v: np.maximum(v, 0))

    def relu6(self, x: str) -> str:
        """Clip to 0..6, the bounds from Constant nodes."""
        y = self.op("Clip", x, self.constant(0), self.constant(6))
        return self.derive(y, x, lambda v: np.clip(v, 0, 6))

    def gelu(self, x: str) -> str:
        """x / 2 * (1 + erf(x / sqrt(2))), operator by operator."""
        erf = self.op("Erf", self.op("Div", x, self.constant(math.sqrt(2))))
        product = self.op("Mul", x, self.op("Add", erf, self.constant(1)))
        y = self.op("Mul", product, self.constant(0.5))
        # The usual approximation by tanh is near enough for moments.
        slope = math.sqrt(2 / math.pi)
        return self.derive(y, x, lambda v: v / 2 * (1 + np.tanh(slope * (v + 0.044715 * v**3))))

    def derive(
        self, y: str, x: str, function: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> str:
        """Give `y` the moments of `x`, or of `function` of it; returns `y`."""
        self.moments[y] = self.moments[x].through(function) if function else self.moments[x]
        return y

    def add(self, a: str, b: str) -> str:
        """Add of tensors of one shape."""
        y = self.op("Add", a, b)
        left, right = self.moments[a], self.moments[b]
        self.moments[y] = Moments(left.mean + right.mean, left.variance + right.variance)
        return y

    def concat(self, *tensors: str) -> str:
        """Concat of channels."""
        y = self.op("Concat", *tensors, axis=1)
        parts = [self.moments[tensor] for tensor in tensors]
        self.moments[y] = Moments(*(np.concatenate(values) for values in zip(*parts, strict=True)))
        return y

    def max_pool(self, x: str, kernel: int, stride: int, pad: int = 0, ceil: bool = False) -> str:
        """MaxPool of square windows."""
        y = self.op(
            "MaxPool",
            x,
            ceil_mode=int(ceil),
            kernel_shape=[kernel, kernel],
            pads=[pad] * 4,
            strides=[stride, stride],
        )
        return self.derive(y, x)

    def global_pool(self, x: str) -> str:
        """Mean over height and width, flattened: [N, channels]."""
        return self.pooled(x, self.op("GlobalAveragePool", x))

    def pooled(self, x: str, mean: str) -> str:
        """Flatten `mean`, the average of all pixels of `x`: [N, channels]."""
        y = self.op("Flatten", mean, axis=1)
        self.moments[y] = Moments(self.moments[x].mean, self.moments[x].variance / POOLED_PIXELS)
        return y

    def _draw(self, x: str, shape: tuple[int, ...], group: int = 1) -> tuple[np.ndarray, Moments]:
        """A weight [outputs, inputs / group, *window], and the moments of its product with `x`."""
        mean, variance = self.moments[x]
        weight = self.normal(*shape)
        if shape[1] > 1:
            weight -= weight.mean(1, keepdims=True)
        weight /= np.sqrt(math.prod(shape[1:]) * variance.mean()).astype(np.float32)
        taps = weight.astype(float).reshape(*shape[:2], -1)
        seen = [
            np.repeat(values.reshape(group, -1), shape[0] // group, 0)
            for values in (mean, variance)
        ]
        return weight, Moments((taps.sum(2) * seen[0]).sum(1), ((taps**2).sum(2) * seen[1]).sum(1))

    def _bias(self, layer: str, moments: Moments) -> tuple[str, Moments]:
        """A bias that leaves only a small mean of a product with `moments`, and what is left."""
        rest = self.normal(len(moments.mean), deviation=0.1)
        bias = self.weight(f"{layer}.bias", (rest - moments.mean).astype(np.float32))
        return bias, Moments(rest.astype(float), moments.variance)
