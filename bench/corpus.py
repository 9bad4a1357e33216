"""The models that benchmarks run on: trained here, built, and public ones that are there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models"))

import build  # noqa: E402
import fetch  # noqa: E402

TRAINED = ("digits_cnn", "digits_transformer", "digits_detector")


def models(names: Sequence[str] = (), *, without: Sequence[str] = ()) -> dict[str, Path]:
    """Files by name: those of `names`, or all, but not those `without`. The zoo is built."""
    wanted = [*TRAINED, *build.ZOO, *fetch.MODELS]
    found = {}
    for name in wanted:
        if name in without or (names and name not in names):
            continue
        path = _find(name)
        if path is not None:
            found[name] = path
    return found


def _find(name: str) -> Path | None:
    if name in TRAINED:
        return ROOT / "models" / f"{name}.onnx"
    return build.path(name) if name in build.ZOO else fetch.find(name)
