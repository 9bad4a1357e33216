"""Train `digits_transformer.onnx`: a vision transformer on 2x2 patches of a digit.

    python models/train_digits_transformer.py

Needs the extra `train` (torch, scikit-learn). Takes a minute on one core.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from digits import split
from nets.trained import TrainedNet
from training import accuracy, fit_classifier, save

TOKENS, WIDTH, HEADS, LAYERS, HIDDEN = 16, 48, 4, 2, 96
HEAD_WIDTH = WIDTH // HEADS


class Layer(nn.Module):
    """Pre-norm encoder layer: [n, 16, 48] -> [n, 16, 48]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part.view(-1, TOKENS, HEADS, HEAD_WIDTH).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(WIDTH, -1)
        )
        weights = (query @ key.transpose(2, 3) * HEAD_WIDTH**-0.5).softmax(-1)
        x = x + self.mix((weights @ value).transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class DigitsTransformer(nn.Module):
    """Image [n, 1, 8, 8] -> logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, WIDTH)
        self.position = nn.Embedding(TOKENS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.fc = nn.Linear(WIDTH, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = image.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, TOKENS, 4)
        x = self.embed(patches) + self.position.weight
        for layer in self.layers:
            x = layer(x)
        return self.fc(self.norm(x).mean(1))


def export(weights: dict[str, np.ndarray], metadata: dict[str, str]) -> onnx.ModelProto:
    """The ONNX model of a trained `DigitsTransformer` from its state dict."""
    net = TrainedNet(
        "digits_transformer",
        "Handwritten digits 0..9. image: float32 [N,1,8,8], pixel values 0..16 divided by 16, "
        "bright strokes on dark ground. logits: float32 [N,10], one score per digit.",
        weights,
    )

    def reshape(x: str, *shape: int) -> str:
        return net.op("Reshape", x, net.constant(shape, "int64"))

    def attention(x: str, name: str) -> str:
        parts = net.ops("Split", net.linear(x, f"{name}.qkv"), outputs=3, axis=-1)
        query, key, value = (
            net.op("Transpose", reshape(part, -1, TOKENS, HEADS, HEAD_WIDTH), perm=perm)
            for part, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
        )
        scores = net.op("Mul", net.op("MatMul", query, key), net.constant(HEAD_WIDTH**-0.5))
        context = net.op("MatMul", net.op("Softmax", scores, axis=-1), value)
        context = net.op("Transpose", context, perm=[0, 2, 1, 3])
        return net.linear(reshape(context, -1, TOKENS, WIDTH), f"{name}.mix")

    def gelu(x: str) -> str:
        erf = net.op("Erf", net.op("Div", x, net.constant(2**0.5)))
        product = net.op("Mul", x, net.op("Add", erf, net.constant(1)))
        return net.op("Mul", product, net.constant(0.5))

    patches = reshape(net.input("image", ["N", 1, 8, 8]), -1, 4, 2, 4, 2)
    patches = reshape(net.op("Transpose", patches, perm=[0, 1, 3, 2, 4]), -1, TOKENS, 4)
    x = net.op("Add", net.linear(patches, "embed"), *net.take("position", "weight"))
    for number in range(LAYERS):
        name = f"layers.{number}"
        x = net.op("Add", x, attention(net.layer_norm(x, f"{name}.norm1"), name))
        hidden = gelu(net.linear(net.layer_norm(x, f"{name}.norm2"), f"{name}.up"))
        x = net.op("Add", x, net.linear(hidden, f"{name}.down"))
    x = net.op("ReduceMean", net.layer_norm(x, "norm"), axes=[1], keepdims=0)
    logits = net.op("Gemm", x, *net.take("fc", "weight", "bias"), name="logits", transB=1)
    net.output(logits, ["N", 10])
    return net.model(metadata)


def main() -> None:
    torch.manual_seed(0)
    train, test = split()
    model = DigitsTransformer()
    fit_classifier(model, *train, epochs=300, rate=3e-3)
    score = f"accuracy {accuracy(model, *test):.4f} on the held-out 450 digits"
    save(export, model, score, Path(__file__).with_name("digits_transformer.onnx"))


if __name__ == "__main__":
    main()
