"""Scenes for the digits detector: digits pasted on a canvas, and how well they are found again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CANVAS = 96
SIZES = range(16, 33)
MOST_DIGITS = 5


class Truth(NamedTuple):
    """What a scene holds."""

    boxes: np.ndarray  # float32 [k, 4]: left, top, right, bottom in pixels
    labels: np.ndarray  # int64 [k]


class Detections(NamedTuple):
    """What was found in a scene."""

    boxes: np.ndarray  # float32 [k, 4]: left, top, right, bottom in pixels
    labels: np.ndarray  # int64 [k]
    scores: np.ndarray  # float32 [k]


def _enlarging(size: int) -> np.ndarray:
    """The matrix [size, 8] that interpolates 8 points to `size`, between half-pixel centres."""
    points = np.clip((np.arange(size) + 0.5) * 8 / size - 0.5, 0, 7)
    return np.maximum(0, 1 - np.abs(points[:, None] - np.arange(8))).astype(np.float32)


_ENLARGING = {size: _enlarging(size) for size in SIZES}


def scene(
    images: np.ndarray, labels: np.ndarray, random: np.random.RandomState
) -> tuple[np.ndarray, Truth]:
    """A canvas float32 [1, 96, 96] in 0..1 with some of `images` [n, 1, 8, 8] on it, at most five.

    Digits are enlarged to 16..32 pixels and may overlap by a tenth of the smaller one; the ground
    is noise with a brightness of its own.
    """
    canvas = random.uniform(0, 0.2) + random.uniform(0, 0.1) * random.rand(CANVAS, CANVAS)
    boxes: list[np.ndarray] = []
    chosen: list[int] = []
    for _ in range(random.randint(1, MOST_DIGITS + 1)):
        size = random.choice(SIZES)
        left, top = random.randint(0, CANVAS - size + 1, 2)
        box = np.array([left, top, left + size, top + size], np.float32)
        if any(_covered(box, other) > 0.1 for other in boxes):
            continue
        index = random.randint(len(images))
        digit = _ENLARGING[size] @ images[index, 0] @ _ENLARGING[size].T
        part = canvas[top : top + size, left : left + size]
        np.maximum(part, digit * random.uniform(0.6, 1), out=part)
        boxes.append(box)
        chosen.append(index)
    return canvas.astype(np.float32)[None], Truth(np.stack(boxes), labels[chosen])


def scenes(
    images: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, list[Truth]]:
    """`count` scenes of `images`: canvases float32 [count, 1, 96, 96], and what each holds."""
    random = np.random.RandomState(seed)
    made = [scene(images, labels, random) for _ in range(count)]
    return np.stack([canvas for canvas, _ in made]), [truth for _, truth in made]


def picked(boxes: np.ndarray, scores: np.ndarray, selected: np.ndarray) -> list[Detections]:
    """The detector's three outputs as detections, scene by scene.

    boxes [n, a, 4], scores [n, 10, a], selected int64 [m, 3]: scene, digit and anchor.
    """
    found = []
    for number in range(len(boxes)):
        _, labels, anchors = selected[selected[:, 0] == number].T
        found.append(Detections(boxes[number, anchors], labels, scores[number, labels, anchors]))
    return found


def mean_average_precision(
    found: Sequence[Detections], truths: Sequence[Truth], overlap: float = 0.5
) -> float:
    """The area under the precision-recall curve at an IoU of `overlap`, averaged over the digits.

    Each of the ten digits must occur in `truths`.
    """
    return float(np.mean([_average_precision(found, truths, d, overlap) for d in range(10)]))


def _average_precision(
    found: Sequence[Detections], truths: Sequence[Truth], digit: int, overlap: float
) -> float:
    claims: list[tuple[float, bool]] = []
    total = 0
    for detections, truth in zip(found, truths, strict=True):
        open_boxes = list(truth.boxes[truth.labels == digit])
        total += len(open_boxes)
        mine = detections.labels == digit
        for index in np.argsort(-detections.scores[mine], kind="stable"):
            box = detections.boxes[mine][index]
            overlaps = [_iou(box, other) for other in open_boxes]
            right = bool(overlaps) and max(overlaps) >= overlap
            if right:
                del open_boxes[int(np.argmax(overlaps))]
            claims.append((float(detections.scores[mine][index]), right))
    claims.sort(key=lambda claim: -claim[0])
    hits = np.array([right for _, right in claims], float)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best_from_here * hits).sum() / total)


def _intersection(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(np.prod(np.maximum(sides, 0)))


def _area(box: np.ndarray) -> float:
    return float(np.prod(box[2:] - box[:2]))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    shared = _intersection(a, b)
    return shared / (_area(a) + _area(b) - shared)


def _covered(a: np.ndarray, b: np.ndarray) -> float:
    return _intersection(a, b) / min(_area(a), _area(b))
