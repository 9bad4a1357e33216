"""Which means of winning accuracy back a model is best served by, found on its own data.

Every other sample calibrates, the rest judges: what helps on the data it was made from alone is not
taken.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import onnx

from edgec.data import Sample
from edgec.graph import Graph
from edgec.quantize.recover.recovery import Recovery
from edgec.quantize.sensitivity import Runner, noise, outputs

_NOTHING = "none"
CANDIDATES = {
    _NOTHING: Recovery(),
    "bias correction": Recovery(bias_correction=True),
    "smoothing by 0.5 and bias correction": Recovery(smooth=0.5, bias_correction=True),
}
MOST = 32
"""Samples that the choice is made with."""

Quantize = Callable[[Graph, Recovery, Iterable[Sample]], onnx.ModelProto]
"""From a float graph of its own, means and samples to the quantized model."""


@dataclass(frozen=True)
class Half:
    """Every second of the first `MOST` samples, from `first` on; may be read again."""

    samples: Iterable[Sample]
    first: int

    def __iter__(self) -> Iterator[Sample]:
        return itertools.islice(self.samples, self.first, MOST, 2)


def choose(graph: Graph, samples: Iterable[Sample], quantize: Quantize) -> tuple[Recovery, str]:
    """The means by which the worst output of `graph` has the least noise, and why, in words.

    With a single sample there is nothing to judge by: no means are taken then, and no words.
    """
    judging = list(Half(samples, 1))
    if not judging:
        return Recovery(), ""
    found: dict[str, float] = {}
    with Runner() as runner:
        wanted = outputs(runner, graph.to_source_opset(), judging)
        for name, recovery in CANDIDATES.items():
            model = quantize(graph.copy(), recovery, Half(samples, 0))
            given = outputs(runner, model, judging)
            found[name] = max(noise(wanted, given).values(), default=0.0)
    best = min(found, key=lambda name: found[name])
    text = "; ".join(f"{name} {_decibels(share)}" for name, share in found.items())
    how = "no means wins accuracy back" if best == _NOTHING else f"accuracy is won back by {best}"
    return CANDIDATES[best], f"{how}: SQNR on samples apart: {text}"


def _decibels(share: float) -> str:
    return f"{-10 * math.log10(share):.1f} dB" if share > 0 else "exact"
