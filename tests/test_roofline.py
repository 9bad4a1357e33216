"""What bounds a step, on made-up peaks: a byte a second less for every byte further away."""

from __future__ import annotations

import pytest

from edgec.peaks import Peaks
from edgec.roofline import Bounds, bounds

NEAR, FAR = 100, 1000
PEAKS = Peaks("P", 1, 10.0, ((NEAR, 100.0), (NEAR + 1, 1.0), (FAR, 1.0)))
"""What was used within the last hundred bytes moves a hundred times faster than all else."""


def call(macs: int, *touches: tuple[str, int, int]) -> dict[str, object]:
    return {"kernel": "k", "macs": macs, "touches": [list(touch) for touch in touches]}


def memory_s(*calls: dict[str, object]) -> list[float]:
    return [found.memory_s for found in bounds(calls, PEAKS)]


def test_the_longer_one_bounds() -> None:
    (found,) = bounds([call(50, ("arena", 0, 10))], PEAKS)
    assert (found.fma_s, found.memory_s) == (pytest.approx(5.0), pytest.approx(0.1))
    assert Bounds(5.0, 0.1).by == "fma"
    assert Bounds(5.0, 0.1).seconds == 5.0
    assert Bounds(0.1, 5.0).by == "memory"
    assert Bounds(0.1, 5.0).seconds == 5.0


def test_a_run_finds_what_the_one_before_left() -> None:
    assert memory_s(call(0, ("weight 0", 0, 100))) == [pytest.approx(1.0)]
    assert memory_s(call(0, ("weight 0", 0, 101))) == [pytest.approx(101.0)]


def test_what_was_just_written_is_near_and_what_a_run_ago_was_read_is_far() -> None:
    first, second = memory_s(
        call(0, ("weight 0", 0, 90), ("arena", 0, 50)),
        call(0, ("arena", 0, 50), ("weight 1", 0, 90)),
    )
    assert first == pytest.approx(90 + 50)  # both were used 140 bytes and more ago
    assert second == pytest.approx(0.5 + 90)


def test_parts_of_the_arena_that_overlap_are_the_same_memory() -> None:
    """The upper half is far away, and so is a whole that contains it."""
    (_, _, upper, whole) = memory_s(
        call(0, ("arena", 0, 80)),
        call(0, ("weight 0", 0, 70), ("arena", 0, 40)),
        call(0, ("arena", 40, 20)),
        call(0, ("arena", 0, 80)),
    )
    assert upper == pytest.approx(20.0)
    assert whole == pytest.approx(80.0)


def test_the_same_offset_of_another_area_is_other_memory() -> None:
    (_, again) = memory_s(
        call(0, ("weight 0", 0, 60), ("weight 1", 0, 60)), call(0, ("weight 0", 0, 60))
    )
    assert again == pytest.approx(60.0)


def test_nothing_touched_takes_no_time() -> None:
    assert memory_s(call(0, ("arena", 0, 0))) == [0.0]


def test_a_manifest_that_does_not_say() -> None:
    with pytest.raises(KeyError):
        bounds([{"kernel": "k", "macs": 0}], PEAKS)
