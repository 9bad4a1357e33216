"""A model that grows by one node at a time, each tensor's type known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

MAX_ELEMENTS = 512


@dataclass(frozen=True)
class Value:
    """A tensor of the model."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass
class Builder:
    """A model that grows by one node at a time; `draw` is hypothesis's."""

    draw: Callable[[Any], Any]
    opset: int
    values: list[Value] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    names: int = 0

    def name(self) -> str:
        self.names += 1
        return f"v{self.names}"

    def pick(self, dtype: str = "float32", rank: int = 0) -> Value | None:
        """A tensor of `dtype` and at least `rank`; the newest are likelier."""
        found = [v for v in self.values if v.dtype == dtype and len(v.shape) >= rank]
        back = self.one_of(0, 0, 0, 1, 2, 4) if found else 0
        return found[-1 - min(back, len(found) - 1)] if found else None

    def integer(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))

    def one_of(self, *items: Any) -> Any:
        return self.draw(st.sampled_from(items))

    def permutation(self, size: int) -> list[int]:
        return list(self.draw(st.permutations(range(size))))

    def constant(self, values: Any) -> str:
        """An initializer or, at times, a Constant node."""
        name = self.name()
        tensor = numpy_helper.from_array(np.asarray(values), name)
        if self.integer(0, 3):
            self.constants.append(tensor)
        else:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def floats(self, shape: tuple[int, ...]) -> str:
        """A constant of values in -1 to 1, now and then all alike."""
        if self.integer(0, 3) == 0:
            return self.constant(np.full(shape, self.one_of(0.0, 1.0, -1.0, 0.5), np.float32))
        rng = np.random.default_rng(self.integer(0, 99))
        return self.constant(rng.uniform(-1, 1, shape).astype(np.float32))

    def add(self, op: str, inputs: list[str], *results: tuple[str, Any], **attributes: Any) -> None:
        """A node that makes `results` of these types and shapes; its newest is `values[-1]`."""
        made = [Value(self.name(), dtype, tuple(map(int, shape))) for dtype, shape in results]
        self.nodes.append(helper.make_node(op, inputs, [v.name for v in made], **attributes))
        self.values += made
