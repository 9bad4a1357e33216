"""What the scripts that train on digits share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from files import write_whole

BATCH = 64

Export = Callable[[dict[str, np.ndarray], dict[str, str]], onnx.ModelProto]


def augment(images: torch.Tensor) -> torch.Tensor:
    """`images` [n, 1, h, w], each turned, scaled and moved a little at random."""
    count = len(images)
    angle = torch.empty(count).uniform_(-0.2, 0.2)
    scale = torch.empty(count).uniform_(0.9, 1.1)
    shift = torch.empty(count, 2).uniform_(-0.15, 0.15)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1)
    grid = nn.functional.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def descend(model: nn.Module, loss: Callable[[], torch.Tensor], *, steps: int, rate: float) -> None:
    """Minimise `loss()`, drawn anew at each step: AdamW, one-cycle schedule up to `rate`."""
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for step in range(1, steps + 1):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}: loss {value.item():.4f}", flush=True)
    model.eval()


def fit_classifier(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, *, epochs: int, rate: float
) -> None:
    """Train `model` on augmented `images` by cross-entropy."""
    x, y = torch.from_numpy(images), torch.from_numpy(labels)

    def loss() -> torch.Tensor:
        chosen = torch.randint(len(x), (BATCH,))
        logits = model(augment(x[chosen]))
        return nn.functional.cross_entropy(logits, y[chosen], label_smoothing=0.05)

    descend(model, loss, steps=epochs * len(x) // BATCH, rate=rate)


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of `images` that `model` classifies right."""
    with torch.no_grad():
        found = model(torch.from_numpy(images)).argmax(1).numpy()
    return float((found == labels).mean())


def save(export: Export, model: nn.Module, score: str, path: Path) -> None:
    """Export `model` to `path`, its score and origin in metadata_props."""
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    metadata = {
        "licence": "Apache-2.0",
        "data": "scikit-learn load_digits (UCI optical recognition of handwritten digits)",
        "score": score,
    }
    write_whole(path, export(weights, metadata).SerializeToString(deterministic=True))
    print(f"{path.name}: {score}, {path.stat().st_size} bytes")
