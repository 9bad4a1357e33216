"""Give the channels between two layers the same range in the weights of both.

    W2 f(W1 x + b1)   =>   (W2 s) f((W1 / s) x + b1 / s)
    with s = 2^rint(log2(sqrt(max(|W1|, |b1|) / max |W2|))) of each channel

Quantization with one scale for all channels then loses least in the two together (cross-layer
equalization; Nagel et al. 2019, arXiv:1906.04721, with factors that are powers of two, and biases
counted in: a channel of small weights may be large by its bias). It goes through the layers until
all factors are 1, since one has neighbours before it and behind.

*Needs* a Conv, Gemm or MatMul whose result goes, through Relu, LeakyRelu, pools and padding by zero
alone, to others of constant weights. The graph must not be quantized yet.

*Numerics*: exact, where no weight is so small that half of it is denormal: a power of two moves
through every rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph import Graph
from edgec.quantize.recover.joints import MAKERS, Joint, joint_of
from edgec.rewrite import Numerics, Pass, Skip
from edgec.tensors import Node

_ROUNDS = 20
_MOST = 2.0**12
"""Of a factor: channels that would need more are nearly zero, and stay so."""


@dataclass(frozen=True)
class EqualizeLayers(Pass):
    name: ClassVar[str] = "equalize-layers"
    numerics: ClassVar[Numerics] = "exact"

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        joints: list[Joint] = []
        for node in graph.gs.nodes:
            if node.op in MAKERS and node.op != "LayerNormalization" and not node.domain:
                try:
                    joints.append(joint_of(node, graph))
                except Skip as skip:
                    yield node, skip
        changed: dict[Node, None] = {}
        for _ in range(_ROUNDS):
            moved = [joint.maker for joint in joints if _equalize(joint, graph)]
            changed.update(dict.fromkeys(moved))
            if not moved:
                break
        for joint in joints:
            if joint.maker in changed:
                yield joint.maker
            else:
                yield joint.maker, Skip("its channels are of the readers' sizes already")


def _equalize(joint: Joint, graph: Graph) -> bool:
    """Move the factors of one joint; whether one of them was not 1."""
    before = np.max([place.largest() for place in joint.before], axis=0)
    after = np.max([place.largest() for place in joint.after], axis=0)
    able = (before > 0) & (after > 0)
    ratio = np.sqrt(np.divide(before, after, out=np.ones_like(before), where=able))
    ratio[np.abs(np.log2(ratio)) > np.log2(_MOST)] = 1
    factor = np.exp2(np.rint(np.log2(ratio)))
    if (factor == 1).all():
        return False
    joint.move(graph, factor)
    return True
