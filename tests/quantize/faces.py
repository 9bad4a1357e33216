"""The face detector of `../shared`, and how a quantized one is judged against it.

A detection is a box whose score is over 0.7; overlapping ones are not merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

REPO = Path(__file__).resolve().parents[2]
MODEL = REPO.parent / "shared" / "models" / "ultraface_slim_320_unsimplified.onnx"
PHOTOS = REPO.parent / "shared" / "data" / "ultraface_photos_240x320_rgb_uint8.npz"
SCORE = 0.7
OVERLAP = 0.5


def photos() -> np.ndarray:
    """float32 [12, 3, 240, 320], as the model wants them."""
    pixels = np.load(PHOTOS)["images"].transpose(0, 3, 1, 2)
    return (pixels.astype(np.float32) - 127) / 128


def detections(model: onnx.ModelProto | Path, images: np.ndarray) -> list[np.ndarray]:
    """The boxes [n, 4] of each image, best first."""
    data = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = []
    for image in images:
        scores, boxes = session.run(["scores", "boxes"], {name: image[None]})
        faces = scores[0, :, 1]
        order = np.argsort(-faces)
        found.append(boxes[0][order[: int((faces > SCORE).sum())]])
    return found


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = float(np.prod(np.maximum(sides, 0)))
    return both / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


@dataclass(frozen=True)
class Verdict:
    """How many detections there were, how many of them are still found, how many are new."""

    wanted: int
    kept: int
    new: int


def judge(wanted: list[np.ndarray], given: list[np.ndarray]) -> Verdict:
    """Match each image's boxes one to one, in their order, where they overlap by over half."""
    kept = 0
    for expected, found in zip(wanted, given, strict=True):
        left = list(found)
        for box in expected:
            best = max(left, key=lambda other: _overlap(box, other), default=None)
            if best is not None and _overlap(box, best) > OVERLAP:
                kept += 1
                left = [other for other in left if other is not best]
    return Verdict(sum(map(len, wanted)), kept, sum(map(len, given)) - kept)
