"""Train `digits_detector.onnx`: a single-shot detector of digits on a canvas, with its NMS head.

    python models/train_digits_detector.py

Needs the extra `train` (torch, scikit-learn). Takes two minutes on one core.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from digits import split
from nets.trained import TrainedNet
from scenes import CANVAS, Truth, mean_average_precision, picked, scene, scenes
from training import descend, save

HERE = Path(__file__).parent
CHANNELS = (12, 24, 48, 48, 48)
STRIDES = (2, 2, 2, 1, 1)
CELL = 8
CELLS = CANVAS // CELL
ANCHOR = 24.0
BATCH = 32
STEPS = 2500
TEST_SCENES = 200
TEST_SEED = 1


class DigitsDetector(nn.Module):
    """Canvas [n, 1, 96, 96] -> [n, 14, 12, 12]: offsets of a box (4), logits of the digits (10).

    The cell that holds a box's centre answers for it: the first two offsets are the centre within
    the cell before a sigmoid, the last two the logarithms of width and height over 24 pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (1, *CHANNELS)
        for number, (channels, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), 1):
            conv = nn.Conv2d(inputs[number - 1], channels, 3, stride, padding=1, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(channels))
        self.head = nn.Conv2d(CHANNELS[-1], 14, 1)
        nn.init.constant_(self.head.bias[4:], -4.0)

    def forward(self, canvas: torch.Tensor) -> torch.Tensor:
        x = canvas
        for number in range(1, len(CHANNELS) + 1):
            x = self.get_submodule(f"conv{number}")(x)
            x = self.get_submodule(f"bn{number}")(x).relu()
        return self.head(x)


def targets(truths: list[Truth]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the cells should say: offsets [n, 4, 12, 12] and digits [n, 10, 12, 12] of 0 or 1."""
    offsets = np.zeros((len(truths), 4, CELLS, CELLS), np.float32)
    digits = np.zeros((len(truths), 10, CELLS, CELLS), np.float32)
    for number, truth in enumerate(truths):
        for (left, top, right, bottom), label in zip(truth.boxes, truth.labels, strict=True):
            x, y = (left + right) / 2 / CELL, (top + bottom) / 2 / CELL
            column, row = int(x), int(y)
            size = np.log([(right - left) / ANCHOR, (bottom - top) / ANCHOR])
            offsets[number, :, row, column] = [x - column, y - row, *size]
            digits[number, label, row, column] = 1
    return torch.from_numpy(offsets), torch.from_numpy(digits)


def detection_loss(found: torch.Tensor, truths: list[Truth]) -> torch.Tensor:
    """Focal loss of the digits (Lin et al., 2017) and squared error of the boxes, per object."""
    offsets, digits = targets(truths)
    objects = digits.amax(1, keepdim=True)
    entropy = nn.functional.binary_cross_entropy_with_logits(found[:, 4:], digits, reduction="none")
    wrong = (found[:, 4:].sigmoid() - digits).abs()
    guess = torch.cat([found[:, :2].sigmoid(), found[:, 2:4]], dim=1)
    box = ((guess - offsets) ** 2 * objects).sum()
    return ((wrong**2 * entropy).sum() + 5 * box) / objects.sum()


def export(weights: dict[str, np.ndarray], metadata: dict[str, str]) -> onnx.ModelProto:
    """The ONNX model of a trained `DigitsDetector`, with decoded boxes, scores and NMS."""
    net = TrainedNet(
        "digits_detector",
        "Finds handwritten digits. image: float32 [N,1,96,96] in 0..1, bright strokes on dark "
        "ground. boxes: float32 [N,144,4], left, top, right, bottom in pixels of each cell. "
        "scores: float32 [N,10,144], 0..1 for each digit. selected: int64 [M,3], scene, digit and "
        "cell of what remains of scores above 0.3 after non-maximum suppression at IoU 0.5; boxes "
        "and scores do without it where shapes must be static.",
        weights,
    )
    x = net.input("image", ["N", 1, CANVAS, CANVAS])
    for number, stride in enumerate(STRIDES, 1):
        x = net.block(x, number, stride)
    x = net.op("Reshape", net.conv(x, "head"), net.constant([0, 14, CELLS**2], "int64"))
    sizes = net.constant([2, 2, 10], "int64")
    centre, size, digits = net.ops("Split", x, sizes, outputs=3, axis=1)
    rows, columns = np.divmod(np.arange(CELLS**2), CELLS)
    grid = net.constant(np.stack([columns, rows])[None])
    centre = net.op("Mul", net.op("Add", net.op("Sigmoid", centre), grid), net.constant(CELL))
    half = net.op("Mul", net.op("Exp", size), net.constant(ANCHOR / 2))
    corners = net.op("Sub", centre, half), net.op("Add", centre, half)
    edges = net.op("Concat", *corners, axis=1)
    boxes = net.op("Transpose", edges, name="boxes", perm=[0, 2, 1])
    scores = net.op("Sigmoid", digits, name="scores")
    limits = [net.constant(10, "int64"), net.constant(0.5), net.constant(0.3)]
    selected = net.op("NonMaxSuppression", boxes, scores, *limits, name="selected")
    net.output(boxes, ["N", CELLS**2, 4])
    net.output(scores, ["N", 10, CELLS**2])
    net.output(selected, ["M", 3], "int64")
    return net.model(metadata)


def main() -> None:
    torch.manual_seed(0)
    random = np.random.RandomState(0)
    train, test = split()
    model = DigitsDetector()

    def loss() -> torch.Tensor:
        made = [scene(*train, random) for _ in range(BATCH)]
        canvases = torch.from_numpy(np.stack([canvas for canvas, _ in made]))
        return detection_loss(model(canvases), [truth for _, truth in made])

    descend(model, loss, steps=STEPS, rate=6e-3)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    session = onnxruntime.InferenceSession(export(weights, {}).SerializeToString())
    canvases, truths = scenes(*test, TEST_SCENES, TEST_SEED)
    found = picked(*session.run(None, {"image": canvases}))
    precision = mean_average_precision(found, truths)
    score = f"mAP {precision:.4f} at IoU 0.5 on {TEST_SCENES} scenes of held-out digits"
    save(export, model, score, HERE / "digits_detector.onnx")


if __name__ == "__main__":
    main()
