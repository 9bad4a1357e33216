"""What was found of each tensor: as text, and as data for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgec.report import table

WORST_CHANNELS = 3
_FEW = 3


@dataclass(frozen=True)
class Channel:
    """A channel, and its SQNR where the errors of the layers before are left out."""

    index: int
    local_db: float


@dataclass(frozen=True)
class TensorReport:
    """A tensor in both models.

    SQNRs are in dB, 10 log10(sum x^2 / sum (q - x)^2) over all samples, infinite where nothing
    differs: `sqnr_db` of the quantized model as it is, `local_db` where the layer is fed the float
    model's values, `weight_db` of the layer's weights. `op` and `node` are the layer's, empty for
    an input of the model; `grid` is what holds the tensor, empty where that is floats. `below` and
    `above` are the shares of the float values that the grid cuts off. `channels_db` are the local
    SQNRs of the channels; `histogram` has counts of float and of quantized values, between the ends
    of the grid but for the first and last, which are beyond.
    """

    name: str
    op: str
    node: str
    is_output: bool
    grid: str
    sqnr_db: float
    local_db: float
    weight_db: float | None
    largest_error: float
    float_range: tuple[float, float]
    quantized_range: tuple[float, float]
    below: float
    above: float
    worst_channels: tuple[Channel, ...]
    channels_db: tuple[float, ...]
    histogram: tuple[tuple[int, ...], tuple[int, ...]] | None

    @property
    def saturated(self) -> float:
        """The share of the float values that the grid cuts off."""
        return self.below + self.above


@dataclass(frozen=True)
class DebugReport:
    """Of all tensors that were found in both models, in the quantized one's order.

    `unmatched` counts the float tensors of the quantized model that the float one has no value for.
    """

    float_model: str
    quantized_model: str
    samples: int
    tensors: Sequence[TensorReport]
    unmatched: int
    notes: Sequence[str]

    def worst(self, count: int) -> list[TensorReport]:
        """The tensors whose own layer adds the most error."""
        return sorted(self.tensors, key=lambda each: each.local_db)[:count]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "float": self.float_model,
            "quantized": self.quantized_model,
            "samples": self.samples,
            "unmatched": self.unmatched,
            "tensors": [asdict(each) | {"saturated": each.saturated} for each in self.tensors],
        }

    def text(self, most: int | None = None) -> str:
        """A table of the tensors, or of the `most` whose layers add the most error, worst first,
        and a summary."""
        header = ("tensor", "layer", "grid", "SQNR", "local", "weights", "cut off", "channels")
        shown = self.tensors if most is None else self.worst(most)
        return "\n\n".join(
            [table(header, list(map(_row, shown)), text=(0, 1, 2, 7)), self.summary()]
        )

    def summary(self) -> str:
        """The outputs' SQNR, where most of the error is made, and what was left out."""
        lines = [
            f"output {each.name}: {db(each.sqnr_db)} dB" for each in self.tensors if each.is_output
        ]
        worst = [each for each in self.worst(_FEW) if each.local_db < math.inf]
        if worst:
            listed = ", ".join(f"{each.name} ({db(each.local_db)} dB)" for each in worst)
            lines.append(f"the layers that add most: {listed}")
        lines.append(
            f"{self.samples} sample{'s'[: self.samples != 1]}, {len(self.tensors)} tensors"
            + (f"; {self.unmatched} have no float value" if self.unmatched else "")
        )
        return "\n".join(lines)


def db(value: float | None) -> str:
    """A ratio for people: one digit, "exact" where nothing differs."""
    if value is None:
        return ""
    return "exact" if value == math.inf else f"{value:.1f}"


def share(value: float) -> str:
    """A share in per cent; nothing for nothing."""
    return f"{100 * value:.2g} %" if value else ""


def _row(each: TensorReport) -> tuple[str, ...]:
    channels = " ".join(f"{c.index}: {db(c.local_db)}" for c in each.worst_channels)
    return (
        each.name,
        each.op or "input",
        each.grid or "float",
        db(each.sqnr_db),
        db(each.local_db),
        db(each.weight_db),
        share(each.saturated),
        channels,
    )
