"""Weights rounded to integers so that results change least, instead of the weights.

    loss = E |x W - x' W'|^2 = W' H W' - 2 W' G W + ...     H = E[x'^T x'], G = E[x'^T x]

for the rows x that a layer reads and x', the same quantized: two matrices are all that is needed of
the data. `H` has a little of its mean diagonal added, and `G` as much, so that what data do not
tell stays near its weights.

* `adaround` chooses for each weight between the integers below and above it, one after the other,
  again and again, while that lessens the loss: the choice of AdaRound (Nagel et al. 2020,
  arXiv:2004.10568), by descent along coordinates instead of gradients.
* `gptq` rounds one input's weights after the other, and lets those that are left make up for it
  (Frantar et al. 2022, arXiv:2210.17323).
"""

from __future__ import annotations

import numpy as np

from edgec.arrays import Array

SWEEPS = 20
DAMPING = 0.01
"""Of the mean diagonal of H."""


def adaround(target: Array, h: Array, weights: Array, low: int, high: int) -> Array:
    """Integers between `low` and `high` for `weights` [inputs, outputs], in steps.

    `target` is G W, `h` is H.
    """
    floor = np.clip(np.floor(weights), low, high)
    ceil = np.clip(floor + 1, low, high)
    chosen = np.clip(np.rint(weights), low, high)
    diagonal = np.diag(h)
    residual = target - h @ chosen
    for _ in range(SWEEPS):
        changed = False
        for i in range(len(weights)):
            wanted = chosen[i] + residual[i] / diagonal[i]
            better = np.where(
                np.abs(wanted - floor[i]) <= np.abs(wanted - ceil[i]), floor[i], ceil[i]
            )
            step = better - chosen[i]
            moved = np.flatnonzero(step)
            if moved.size:
                residual[:, moved] -= np.outer(h[:, i], step[moved])
                chosen[i] = better
                changed = True
        if not changed:
            break
    return chosen


def gptq(target: Array, h: Array, weights: Array, low: int, high: int) -> Array:
    """The same by GPTQ; `weights` are first moved to where the loss is least."""
    order = np.argsort(-np.diag(h), kind="stable")
    h = h[np.ix_(order, order)]
    left = np.linalg.solve(h, target[order])
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    chosen = np.empty_like(weights)
    for i, place in enumerate(order):
        chosen[place] = np.clip(np.rint(left[i]), low, high)
        error = (left[i] - chosen[place]) / upper[i, i]
        left[i + 1 :] -= np.outer(upper[i, i + 1 :], error)
    return chosen
