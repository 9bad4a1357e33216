"""Records to test with."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgec.tune.records import Record

PLAIN = Record(
    kernel="a" * 16,
    space=1,
    target="x86_64 x86-64-v3",
    threads=1,
    decisions={"tile": 14, "order": "channels"},
    seconds=1e-3,
    valid=True,
    confirmed=True,
    spread=0.01,
    baseline=2e-3,
    machine="bench",
    date="2026-01-31T12:00:00.000000Z",
    edgec="0.1.0",
    tvm="0.27.0",
    seed=7,
    label="conv2d 64x56x56",
)


def sample(number: int = 0, **changes: Any) -> Record:
    """A record that differs from those of other numbers, with the fields `changes`."""
    plain = {"decisions": {"tile": number}, "seconds": 1e-3 + number * 1e-6}
    return dataclasses.replace(PLAIN, **(plain | changes))
