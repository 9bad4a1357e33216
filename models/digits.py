"""scikit-learn's handwritten digits, split once and for all.

1797 images of 8x8 pixels with values 0..16, divided by 16 to lie in 0..1. The split is drawn with
`RandomState`, whose stream numpy promises never to change.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

SPLIT_SEED = 0
TEST_IMAGES = 450


def split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """((train images, train labels), (test images, test labels)).

    Images are float32 [n, 1, 8, 8] in 0..1, labels int64 [n]; n is 1347 and 450.
    """
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    labels = data.target.astype(np.int64)
    order = np.random.RandomState(SPLIT_SEED).permutation(len(images))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return (images[train], labels[train]), (images[test], labels[test])
