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


def models(names: Sequence[str] = ()) -> dict[str, Path]:
    """Files by name: those of `names`, or all that are there. The zoo is built."""
    every = [*TRAINED, *build.ZOO, *fetch.MODELS]
    files = {name: _find(name) for name in every if not names or name in names}
    return {name: path for name, path in files.items() if path is not None}


def _find(name: str) -> Path | None:
    if name in TRAINED:
        return ROOT / "models" / f"{name}.onnx"
    return build.path(name) if name in build.ZOO else fetch.find(name)
