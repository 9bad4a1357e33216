"""Golden data as Python packs them and the runtime reads them."""

from __future__ import annotations

import re

import numpy as np

from edgec.emit.golden import HEAD_ELEMENTS, golden_inputs, pack_golden
from edgec.emit.toolchain import RUNTIME
from edgec.program import Extent, Tensor

LARGE = Tensor("x", "float32", (3, 5, 1000))
SMALL = Tensor("y", "int8", (3,))


def test_python_and_c_agree_on_the_head() -> None:
    found = re.search(r"EDGEC_GOLDEN_HEAD = (\d+)", (RUNTIME / "program.h").read_text())
    assert found is not None
    assert int(found[1]) == HEAD_ELEMENTS


def test_inputs_repeat_their_head() -> None:
    drawn = {"x": np.arange(15000, dtype=np.float32).reshape(LARGE.shape)}
    made = golden_inputs(drawn, [LARGE])["x"]
    assert made.shape == LARGE.shape
    np.testing.assert_array_equal(made.ravel(), np.arange(15000) % HEAD_ELEMENTS)


def test_layout() -> None:
    x = np.arange(15000, dtype=np.float32).reshape(LARGE.shape)
    y = np.array([1, 2, 3], np.int8)
    packed = pack_golden([LARGE, SMALL], [SMALL], {"x": x, "y": y}, {"y": -y})
    start = -(-4 * HEAD_ELEMENTS // 64) * 64
    assert len(packed) == start + 2 * 64
    assert packed[: 4 * HEAD_ELEMENTS] == x.ravel()[:HEAD_ELEMENTS].tobytes()
    assert packed[start : start + 64] == y.tobytes() + bytes(61)
    assert packed[start + 64 :] == (-y).tobytes() + bytes(61)


def test_extents_come_before_the_outputs() -> None:
    packed = pack_golden(
        [SMALL],
        [Tensor("z", "int64", (9, 3))],
        {"y": np.array([1, 2, 3], np.int8)},
        {"z": np.arange(6).reshape(2, 3)},
        [Extent("z", 0, 5)],
    )
    assert len(packed) == 3 * 64
    assert packed[64:128] == np.array([2], np.int64).tobytes() + bytes(56)
    assert packed[128:176] == np.arange(6).tobytes()
