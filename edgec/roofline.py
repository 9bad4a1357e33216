"""What bounds a step: multiplying and adding, or moving its data, each at the machine's peak.

No data move faster than the cache allows that holds them, so it matters when they were used last.
An address is as far away as there are other bytes touched since, in a run that follows another:
its distance, by which `edgec.peaks` knows the bandwidth. (Williams, Waterman and Patterson,
"Roofline", 2009; Mattson et al., "Evaluation techniques for storage hierarchies", 1970.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgec.peaks import Peaks


@dataclass(frozen=True)
class Bounds:
    """The least seconds that one call can take on a machine with these peaks.

    `fma_s` is for its multiply-accumulates, 0 where they are not known, `memory_s` for its data.
    """

    fma_s: float
    memory_s: float

    @property
    def seconds(self) -> float:
        """The longer of the two: both can be done at the same time."""
        return max(self.fma_s, self.memory_s)

    @property
    def by(self) -> Literal["fma", "memory"]:
        """Which is the longer."""
        return "fma" if self.fma_s > self.memory_s else "memory"


def bounds(calls: Sequence[Mapping[str, Any]], peaks: Peaks) -> list[Bounds]:
    """Of every kernel call of a manifest, in the order of the plan.

    The body of a loop counts once, and of a choice both sides. KeyError where the manifest does not
    say what its calls touch.
    """
    recent = _Recent()
    for call in calls:
        for touch in call["touches"]:
            recent.touch(*touch)
    found = []
    for call in calls:
        moved = sum(
            nbytes / peaks.bytes_per_s(recent.touch(area, offset, nbytes))
            for area, offset, nbytes in call["touches"]
            if nbytes
        )
        found.append(Bounds(call["macs"] / peaks.fma_per_s, moved))
    return found


class _Recent:
    """What was touched, the most recent first, as spans (area, begin, end) that do not overlap."""

    def __init__(self) -> None:
        self._spans: list[tuple[str, int, int]] = []

    def touch(self, area: str, offset: int, nbytes: int) -> int:
        """The bytes touched since these were last, they themselves included; all, where never."""
        end = offset + nbytes
        kept: list[tuple[str, int, int]] = []
        passed, distance, missing = 0, 0, nbytes
        for span in self._spans:
            passed += span[2] - span[1]
            if span[0] != area or span[2] <= offset or span[1] >= end:
                kept.append(span)
                continue
            missing -= min(span[2], end) - max(span[1], offset)
            distance = passed
            if span[1] < offset:
                kept.append((area, span[1], offset))
            if span[2] > end:
                kept.append((area, end, span[2]))
        self._spans = [(area, offset, end), *kept]
        return passed + missing if missing else distance
