"""Layers that take their weights from a trained torch module's state dict."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nets.writer import Net


class TrainedNet(Net):
    """A `Net` with the layers of a torch module; `layer` is a layer's name in the state dict."""

    def __init__(self, name: str, doc: str, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(name, doc)
        self._trained = weights

    def take(self, layer: str, *parts: str) -> list[str]:
        """Add the named `parts` of `layer` as initializers."""
        return [self.weight(f"{layer}.{part}", self._trained[f"{layer}.{part}"]) for part in parts]

    def conv(self, x: str, layer: str, stride: int = 1) -> str:
        """Conv of an odd kernel padded by half of it, with a bias if there is one."""
        kernel = self._trained[f"{layer}.weight"].shape[2:]
        parts = ["weight", "bias"] if f"{layer}.bias" in self._trained else ["weight"]
        return self.op(
            "Conv",
            x,
            *self.take(layer, *parts),
            name=layer,
            kernel_shape=kernel,
            pads=[size // 2 for size in kernel] * 2,
            strides=[stride, stride],
        )

    def block(self, x: str, number: int, stride: int = 1) -> str:
        """Conv `conv{number}`, BatchNormalization `bn{number}`, Relu."""
        x = self.conv(x, f"conv{number}", stride)
        parts = self.take(f"bn{number}", "weight", "bias", "running_mean", "running_var")
        x = self.op("BatchNormalization", x, *parts, name=f"bn{number}", epsilon=1e-5)
        return self.op("Relu", x, name=f"relu{number}")

    def linear(self, x: str, layer: str) -> str:
        """MatMul and Add on the last axis."""
        matrix = self.weight(f"{layer}.weight", self._trained[f"{layer}.weight"].T)
        product = self.op("MatMul", x, matrix, name=f"{layer}.matmul")
        return self.op("Add", product, *self.take(layer, "bias"), name=layer)

    def layer_norm(self, x: str, layer: str) -> str:
        parts = self.take(layer, "weight", "bias")
        return self.op("LayerNormalization", x, *parts, name=layer, axis=-1, epsilon=1e-5)
