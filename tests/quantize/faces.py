"""The face detector of `../shared`, and how a quantized one is judged against it.

A detection is a box whose score is over 0.7; overlapping ones are not merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import networkx
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


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each box of `a` [n, 4] with each of `b` [m, 4]: [n, m]."""
    a, b = a[:, None], b[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = np.maximum(sides, 0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (a, b)]
    return both / (areas[0] + areas[1] - both)


@dataclass(frozen=True)
class Verdict:
    """How many detections there were, how many of them are still found, how many are new.

    The other two count each detection of one model for one of the other at most: `paired` is how
    many pairs there are then, `unpaired` how many of the second model are in none.
    """

    wanted: int
    kept: int
    new: int
    paired: int
    unpaired: int


def judge(wanted: list[np.ndarray], given: list[np.ndarray]) -> Verdict:
    """A detection is kept, or not new, where one of the other model overlaps by over half."""
    kept = new = paired = 0
    for expected, found in zip(wanted, given, strict=True):
        near = _overlaps(expected, found) > OVERLAP
        kept += int(near.any(axis=1).sum())
        new += int((~near.any(axis=0)).sum())
        paired += _pairs(near)
    return Verdict(sum(map(len, wanted)), kept, new, paired, sum(map(len, given)) - paired)


def _pairs(near: np.ndarray) -> int:
    """The most pairs of a row and a column that are near, each in one pair only."""
    graph = networkx.Graph()
    rows = [("row", i) for i in range(len(near))]
    graph.add_nodes_from(rows)
    graph.add_edges_from((("row", i), ("column", j)) for i, j in np.argwhere(near).tolist())
    return len(networkx.bipartite.hopcroft_karp_matching(graph, rows)) // 2
