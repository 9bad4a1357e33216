"""Train `digits_cnn.onnx`, and write the few test digits that `make demo` runs it on.

    python models/train_digits.py

Needs the extra `train` (torch, scikit-learn). Takes ten seconds on one core.
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

HERE = Path(__file__).parent
DEMO_IMAGES = 64


class DigitsCnn(nn.Module):
    """Image [n, 1, 8, 8] -> logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32 * 2 * 2, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(image)).relu()
        x = nn.functional.max_pool2d(self.bn2(self.conv2(x)).relu(), 2)
        x = nn.functional.max_pool2d(self.bn3(self.conv3(x)).relu(), 2)
        return self.fc(x.flatten(1))


def export(weights: dict[str, np.ndarray], metadata: dict[str, str]) -> onnx.ModelProto:
    """The ONNX model of a trained `DigitsCnn` from its state dict."""
    net = TrainedNet(
        "digits_cnn",
        "Handwritten digits 0..9. image: float32 [N,1,8,8], pixel values 0..16 divided by 16, "
        "bright strokes on dark ground. logits: float32 [N,10], one score per digit.",
        weights,
    )
    x = net.block(net.input("image", ["N", 1, 8, 8]), 1)
    for number in (2, 3):
        x = net.block(x, number)
        x = net.op("MaxPool", x, name=f"pool{number}", kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Flatten", x, name="flatten", axis=1)
    logits = net.op("Gemm", x, *net.take("fc", "weight", "bias"), name="logits", transB=1)
    net.output(logits, ["N", 10])
    return net.model(metadata)


def main() -> None:
    torch.manual_seed(0)
    train, test = split()
    model = DigitsCnn()
    fit_classifier(model, *train, epochs=40, rate=4e-3)
    score = f"accuracy {accuracy(model, *test):.4f} on the held-out 450 digits"
    save(export, model, score, HERE / "digits_cnn.onnx")
    np.savez_compressed(HERE / "digits_test.npz", image=test[0][:DEMO_IMAGES])
    np.save(HERE / "digits_labels.npy", test[1][:DEMO_IMAGES])


if __name__ == "__main__":
    main()
