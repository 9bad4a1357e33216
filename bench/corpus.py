"""The models that benchmarks run on: trained here, built, and public ones that are there."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models"))

import build  # noqa: E402
import fetch  # noqa: E402

TRAINED = ("digits_cnn", "digits_transformer", "digits_detector")
MLPERF_TINY = {
    "mlperf_tiny_kws_fp32": "ds_cnn",
    "mlperf_tiny_vww_mobilenet_fp32": "mobilenet_v1",
    "mlperf_tiny_ic_resnet8_fp32": "resnet8",
    "mlperf_tiny_ad_autoencoder_fp32": "autoencoder",
}
"""Published models, and of each the one of the zoo that is built alike, with random weights."""


@dataclass(frozen=True)
class Set:
    """Models whose speed counts together: the time of edgec over that of the best peer is at most
    `mean` in the geometric mean, and `worst` for each, where these are known."""

    title: str
    names: tuple[str, ...]
    mean: float = math.inf
    worst: float = math.inf


SETS = (
    Set(
        "Large models",
        (
            "mobilenet_v2",
            "resnet18",
            "squeezenet",
            "unet",
            "digits_detector",
            "bert_tiny",
            "encoder",
            "ultraface_slim_320",
            "ultraface_slim_320_unsimplified",
        ),
        mean=0.9,
        worst=1.1,
    ),
    Set(
        "Small models",
        (*MLPERF_TINY, "digits_cnn", "gru_keyword", "lstm_keyword"),
        mean=0.6,
        worst=1.0,
    ),
    Set("Built like MLPerf Tiny's, with random weights", tuple(MLPERF_TINY.values())),
)


def models(names: Sequence[str] = ()) -> dict[str, Path]:
    """Files by name: those of `names`, or all that are there. The zoo is built."""
    every = [*TRAINED, *build.ZOO, *fetch.MODELS]
    files = {name: _find(name) for name in every if not names or name in names}
    return {name: path for name, path in files.items() if path is not None}


def _find(name: str) -> Path | None:
    if name in TRAINED:
        return ROOT / "models" / f"{name}.onnx"
    return build.path(name) if name in build.ZOO else fetch.find(name)
