"""What the user decides instead of edgec: a JSON file of ranges and of what stays in floats.

    {"ranges": {"relu1": [0, 6]}, "float": ["conv3", "Softmax"]}

`ranges` are the least and the largest value to hold of tensors, `float` operators and nodes. Names
are those of the optimised model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgec.errors import UsageError
from edgec.graph import Graph


@dataclass(frozen=True)
class Overrides:
    """What such a file says."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    floats: tuple[str, ...] = ()

    def check(self, graph: Graph) -> None:
        """Raises UsageError for a range of what is no tensor of `graph`."""
        known = {t.name for node in graph.nodes() for t in (*node.inputs, *node.outputs)}
        for name in self.ranges:
            if name not in known:
                raise UsageError(f"there is no tensor '{name}'", where="--overrides")


def read_overrides(path: Path) -> Overrides:
    """The overrides in the file `path`. Raises UsageError for what is not of their form."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise UsageError(f"is no JSON: {error}", where=str(path)) from error
    if not isinstance(found, dict) or found.keys() - {"ranges", "float"}:
        raise UsageError(
            "is not of the form of overrides",
            where=str(path),
            hint='write {"ranges": {"TENSOR": [0, 6]}, "float": ["NODE"]}',
        )
    ranges, floats = found.get("ranges", {}), found.get("float", [])
    if not isinstance(floats, list) or not all(isinstance(name, str) for name in floats):
        raise UsageError("'float' is no list of names", where=str(path))
    if not isinstance(ranges, dict):
        raise UsageError("'ranges' is no object", where=str(path))
    return Overrides({name: _range(name, ends, path) for name, ends in ranges.items()}, (*floats,))


def _range(name: str, ends: object, path: Path) -> tuple[float, float]:
    if isinstance(ends, list) and len(ends) == 2:
        low, high = ends
        numbers = all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
        if numbers and low <= high:
            return float(low), float(high)
    raise UsageError(f"the range of '{name}' is not [LEAST, LARGEST]", where=str(path))
