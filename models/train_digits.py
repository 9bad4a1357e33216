"""Train `digits_cnn.onnx`, and write the few test digits that `make demo` runs it on.

    python models/train_digits.py

Needs the extra `train` (torch, scikit-learn). Takes about a minute on one core.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from digits import split
from nets.writer import Net
from torch import nn
from training import accuracy, augment, fit, save

HERE = Path(__file__).parent
DEMO_IMAGES = 64
CHANNELS = (16, 32, 32)


class DigitsCnn(nn.Module):
    """Image [n, 1, 8, 8] -> logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = CHANNELS
        self.conv1 = nn.Conv2d(1, a, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(a)
        self.conv2 = nn.Conv2d(a, b, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(b)
        self.conv3 = nn.Conv2d(b, c, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(c)
        self.fc = nn.Linear(c * 2 * 2, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(image)).relu()
        x = nn.functional.max_pool2d(self.bn2(self.conv2(x)).relu(), 2)
        x = nn.functional.max_pool2d(self.bn3(self.conv3(x)).relu(), 2)
        return self.fc(x.flatten(1))


def export(weights: dict[str, np.ndarray], metadata: dict[str, str]) -> onnx.ModelProto:
    """The ONNX model of a trained `DigitsCnn` from its state dict."""
    net = Net(
        "digits_cnn",
        "Handwritten digits 0..9. image: float32 [N,1,8,8], pixel values 0..16 divided by 16, "
        "bright strokes on dark ground. logits: float32 [N,10], one score per digit.",
    )

    def block(x: str, number: int) -> str:
        kernel = net.weight(f"conv{number}.weight", weights[f"conv{number}.weight"])
        x = net.op("Conv", x, kernel, name=f"conv{number}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        parts = [f"bn{number}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        tensors = [net.weight(part, weights[part]) for part in parts]
        x = net.op("BatchNormalization", x, *tensors, name=f"bn{number}", epsilon=1e-5)
        return net.op("Relu", x, name=f"relu{number}")

    x = block(net.input("image", ["N", 1, 8, 8]), 1)
    for number in (2, 3):
        x = block(x, number)
        x = net.op("MaxPool", x, name=f"pool{number}", kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Flatten", x, name="flatten", axis=1)
    matrix = net.weight("fc.weight", weights["fc.weight"])
    bias = net.weight("fc.bias", weights["fc.bias"])
    net.output(net.op("Gemm", x, matrix, bias, name="logits", transB=1), ["N", 10])
    return net.model(metadata)


def main() -> None:
    torch.manual_seed(0)
    train, test = split()
    model = DigitsCnn()
    fit(model, *train, epochs=40, rate=4e-3, augment=augment)
    save(export, model, accuracy(model, *test), HERE / "digits_cnn.onnx")
    np.savez_compressed(HERE / "digits_test.npz", image=test[0][:DEMO_IMAGES])
    np.save(HERE / "digits_labels.npy", test[1][:DEMO_IMAGES])


if __name__ == "__main__":
    main()
