"""Move the size of channels from activations into the weights that read them.

    s = a^alpha / w^(1 - alpha)    of each channel: a = max |x| on data, w = max |W| of its readers
    x / s  and  W s                in the place of x and W

(SmoothQuant; Xiao et al. 2022, arXiv:2211.10438.) One scale for a whole tensor then loses less in
channels that are small, and weights, which are quantized channel by channel on their other side,
take up the difference. `alpha` is 0..1; 0.5 shares it equally. What divides x is what makes it: a
LayerNormalization's scale and bias, or the weights and bias of the layer before.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from edgec.arrays import Array
from edgec.errors import UsageError
from edgec.graph import Graph
from edgec.quantize.recover.joints import Joint, find_joints

_MOST = 1e5
"""Of a factor: channels that are nearly zero stay so."""


def smooth(graph: Graph, alpha: float, largest: Mapping[str, Array]) -> int:
    """Change the weights of `graph` in place; how many joints there were.

    `largest` has, by name of the tensors of `smoothed`, the largest magnitude in each channel.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"{alpha:g} is not between 0 and 1", where="--smooth")
    joints = list(find_joints(graph))
    for joint in joints:
        joint.move(graph, factors(joint, alpha, largest))
    return len(joints)


def smoothed(graph: Graph) -> list[gs.Tensor]:
    """The tensors whose channels `smooth` needs to know the size of."""
    return list(dict.fromkeys(t for joint in find_joints(graph) for t, _ in joint.read))


class LargestInChannels:
    """The largest magnitudes in the channels of tensors, over all samples."""

    def __init__(self, graph: Graph) -> None:
        self._axes = {t.name: axis for joint in find_joints(graph) for t, axis in joint.read}
        self.found: dict[str, Array] = {}

    def add(self, values: Mapping[str, Array]) -> None:
        """Count in the values of one sample, by name."""
        for name, axis in self._axes.items():
            rows = np.moveaxis(np.abs(values[name]), axis, -1)
            most = rows.reshape(-1, rows.shape[-1]).max(axis=0).astype(np.float64)
            self.found[name] = np.maximum(self.found.get(name, most), most)


def factors(joint: Joint, alpha: float, largest: Mapping[str, Array]) -> Array:
    """What the channels are divided by; 1 where there is nothing to share."""
    a = np.max([largest[t.name] for t, _ in joint.read], axis=0)
    w = np.max([place.largest() for place in joint.after], axis=0)
    able = (a > 0) & (w > 0)
    a, w = np.where(able, a, 1), np.where(able, w, 1)
    return np.asarray(np.clip(a**alpha / w ** (1 - alpha), 1 / _MOST, _MOST))
