"""Move the size of channels from activations into the weights that read them.

    s = a^alpha / w^(1 - alpha)    of each channel: a = max |x| on data, w = max |W| of its readers
    x / s  and  W s                in the place of x and W

(SmoothQuant; Xiao et al. 2022, arXiv:2211.10438.) One scale for a whole tensor then loses less in
channels that are small, and weights, which are quantized channel by channel on their other side,
take up the difference. What divides x is what makes it: a LayerNormalization's scale and bias, or
the weights and bias of the layer before.

`alpha` is 0..1, or is chosen for each joint, as is whether to do it at all, by what rounding adds
to the readers' results. With a step d of x for all channels and D of W for each result:

    E = sum d^2 / 12 (W s)^2  +  sum D^2 / 12 E[(x / s)^2]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from edgec.arrays import Array
from edgec.errors import UsageError
from edgec.graph import Graph
from edgec.quantize.recover.joints import Joint, Place, find_joints

ALPHAS = tuple(i / 10 for i in range(11))
"""That are tried where none is given."""
_MOST = 1e5
"""Of a factor: channels that are nearly zero stay so."""


@dataclass
class Sizes:
    """Of the channels of a tensor: the least and largest value, and the sum of `count` squares."""

    low: Array
    high: Array
    squares: Array
    count: int

    @property
    def largest(self) -> Array:
        """The largest magnitudes."""
        return np.maximum(-self.low, self.high)

    def step(self, factor: Array, symmetric: bool) -> float:
        """Of a grid of 8 bits for all channels, divided by `factor`."""
        if symmetric:
            return float((self.largest / factor).max()) / 127
        high, low = max((self.high / factor).max(), 0.0), min((self.low / factor).min(), 0.0)
        return float(high - low) / 255


class ChannelSizes:
    """The sizes of the channels of the tensors that joints are about, over all samples."""

    def __init__(self, graph: Graph) -> None:
        self._axes = {t: axis for joint in find_joints(graph) for t, axis in joint.read}
        self.found: dict[str, Sizes] = {}

    @property
    def tensors(self) -> Sequence[gs.Tensor]:
        """Whose values are wanted."""
        return list(self._axes)

    def add(self, values: Mapping[str, Array]) -> None:
        """Count in the values of one sample, by name."""
        for tensor, axis in self._axes.items():
            rows = np.moveaxis(values[tensor.name], axis, -1).astype(np.float64)
            rows = rows.reshape(-1, rows.shape[-1])
            new = Sizes(rows.min(0), rows.max(0), np.square(rows).sum(0), len(rows))
            old = self.found.get(tensor.name)
            if old is not None:
                new.low, new.high = np.minimum(old.low, new.low), np.maximum(old.high, new.high)
                new.squares, new.count = old.squares + new.squares, old.count + new.count
            self.found[tensor.name] = new


def smooth(
    graph: Graph, alpha: float | None, sizes: Mapping[str, Sizes], *, symmetric: bool = True
) -> int:
    """Change the weights of `graph` in place; how many joints were changed.

    `sizes` are those that `ChannelSizes` found, by name; `symmetric` says how the activations will
    be quantized. Without an `alpha` each joint has its own. Raises UsageError for one beyond 0..1.
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise UsageError(f"{alpha:g} is not between 0 and 1", where="--smooth")
    moved = 0
    for joint in find_joints(graph):
        own = [sizes[tensor.name] for tensor, _ in joint.read]
        if alpha is not None:
            factor = factors(joint, alpha, own)
        else:
            tried = [np.ones(joint.channels), *(factors(joint, a, own) for a in ALPHAS)]
            factor = min(tried, key=lambda each: noise(joint, each, own, symmetric))
        if (factor != 1).any():
            joint.move(graph, factor)
            moved += 1
    return moved


def factors(joint: Joint, alpha: float, sizes: Sequence[Sizes]) -> Array:
    """What the channels are divided by; 1 where there is nothing to share."""
    a = np.max([each.largest for each in sizes], axis=0)
    w = np.max([place.largest() for place in joint.after], axis=0)
    able = (a > 0) & (w > 0)
    a, w = np.where(able, a, 1), np.where(able, w, 1)
    return np.asarray(np.clip(a**alpha / w ** (1 - alpha), 1 / _MOST, _MOST))


def noise(joint: Joint, factor: Array, sizes: Sequence[Sizes], symmetric: bool) -> float:
    """What rounding adds to the results of the joint's readers, in squares, by the formula."""
    step = max(each.step(factor, symmetric) for each in sizes)
    squares = np.mean([each.squares / each.count for each in sizes], axis=0) / np.square(factor)
    return sum(_noise(place, factor, step, squares) for place in joint.after)


def _noise(place: Place, factor: Array, step: float, squares: Array) -> float:
    """Of one reader, summed over its results at one place."""
    weights = place.matrices() * factor.reshape(place.groups, 1, -1, 1)
    steps = np.abs(weights).max(axis=(2, 3)) / 127
    taps = weights.shape[3]
    means = taps * squares.reshape(place.groups, 1, -1).sum(axis=2)
    return float(step**2 * np.square(weights).sum() + (np.square(steps) * means).sum()) / 12
