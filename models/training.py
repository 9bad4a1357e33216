"""What the training scripts of the digits classifiers share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

BATCH = 64


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


def fit(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int,
    rate: float,
    augment: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Train `model` on cross-entropy: AdamW, one-cycle schedule up to `rate`, one thread."""
    torch.set_num_threads(1)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    batches = len(x) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches)
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(x))[: batches * BATCH].split(BATCH):
            logits = model(augment(x[chosen]))
            loss = nn.functional.cross_entropy(logits, y[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / batches:.4f}", flush=True)


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of `images` that `model` classifies right."""
    model.eval()
    with torch.no_grad():
        found = model(torch.from_numpy(images)).argmax(1).numpy()
    return float((found == labels).mean())


def save(
    export: Callable[[dict[str, np.ndarray], dict[str, str]], onnx.ModelProto],
    model: nn.Module,
    score: float,
    path: Path,
) -> None:
    """Export `model` to `path`, its accuracy and origin in metadata_props."""
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    metadata = {
        "licence": "Apache-2.0",
        "data": "scikit-learn load_digits (UCI optical recognition of handwritten digits)",
        "accuracy": f"{score:.4f} on the 450 held-out images of models/digits.py",
    }
    onnx.save(export(weights, metadata), path)
    print(f"{path.name}: accuracy {score:.4f}, {path.stat().st_size} bytes")
