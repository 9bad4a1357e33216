"""Statistics of a model's tensors, kept in the cache by the model and the data."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from edgec.arrays import Array, is_float
from edgec.cache import Cache, key_of, tool_digest
from edgec.data import Sample
from edgec.graph import Graph
from edgec.quantize.calibrate import calibrate
from edgec.quantize.reader import bytes_of
from edgec.quantize.statistics import BINS, Histogram, Statistics

_KIND = "calibration"
_NUMBERS = ("low", "high", "lows", "highs", "samples", "finite")


def statistics(
    graph: Graph,
    tensors: Sequence[gs.Tensor],
    samples: Iterable[Sample],
    cache: Cache,
    *,
    histograms: bool,
    on_sample: Callable[[int], None],
) -> tuple[dict[str, Statistics], int, dict[str, list[int]]]:
    """Of `tensors`, by name, and of how many samples; with histograms where these are asked for.
    By name of an input, its channels that are zero on all samples where others are not.

    `samples` are read a first time for what tells them from others. Raises what
    `edgec.quantize.calibrate` raises.
    """
    data, count, zeros = _read(samples)
    names = sorted(tensor.name for tensor in tensors)
    model = graph.to_onnx().SerializeToString(deterministic=True)
    key = key_of(tool_digest("quantize"), model, data, names, histograms)
    stored = cache.get(_KIND, key)
    if stored is not None:
        return _unpacked(stored), count, zeros
    found = calibrate(graph, tensors, samples, histograms=histograms, on_sample=on_sample)
    cache.put(_KIND, key, _packed(found))
    return found, count, zeros


def _read(samples: Iterable[Sample]) -> tuple[str, int, dict[str, list[int]]]:
    """What tells the samples from others, how many there are, and channels that are zero."""
    digest = hashlib.sha256()
    count = 0
    used: dict[str, Array] = {}
    for count, sample in enumerate(samples, 1):  # noqa: B007
        digest.update(bytes_of(sample))
        for name, array in sample.items():
            if array.ndim >= 3 and is_float(array.dtype):
                channels = np.moveaxis(array, 1, 0).reshape(array.shape[1], -1).any(axis=1)
                used[name] = channels | used.get(name, np.zeros_like(channels))
    zeros = {name: np.flatnonzero(~each).tolist() for name, each in used.items() if each.any()}
    return digest.hexdigest(), count, {name: places for name, places in zeros.items() if places}


def _packed(found: dict[str, Statistics]) -> bytes:
    numbers = [[float(getattr(s, key)) for key in _NUMBERS] for s in found.values()]
    kept = [s.histogram or Histogram() for s in found.values()]
    with_histograms = any(s.histogram is not None for s in found.values())
    stream = io.BytesIO()
    np.savez(
        stream,
        names=np.array(list(found), np.str_),
        numbers=np.array(numbers, np.float64).reshape(-1, len(_NUMBERS)),
        limits=np.array([h.limit for h in kept] if with_histograms else [], np.float64),
        counts=np.array([h.counts for h in kept] if with_histograms else [], np.int64),
    )
    return stream.getvalue()


def _unpacked(stored: bytes) -> dict[str, Statistics]:
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        names, numbers = arrays["names"].tolist(), arrays["numbers"].tolist()
        limits, counts = arrays["limits"].tolist(), arrays["counts"].reshape(-1, BINS)
    found = {}
    for i, (name, row) in enumerate(zip(names, numbers, strict=True)):
        low, high, lows, highs, samples, finite = row
        histogram = Histogram(limits[i], counts[i]) if limits else None
        found[name] = Statistics(low, high, lows, highs, int(samples), bool(finite), histogram)
    return found
