"""What a module is held to: the results of its model, and the room that the model itself leaves.

A model in half precision is held to what it computes in float32 (`edgec.halves`), by several times
the error of rounding as it says; one behind a quantization of computed numbers to what else ONNX
Runtime makes of it where these are rounded a little differently (`edgec.flips`). One computed in
TF32 may be off by several times the error of rounding its factors so (`edgec.tf32`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self

import onnx

from edgec.arrays import Array
from edgec.compare import Justify, Moved
from edgec.data import Sample
from edgec.flips import NUDGES, behind, find_flips, nudged
from edgec.floors import find_floors
from edgec.halves import find_halves, in_float32, rounded
from edgec.peers import EngineError
from edgec.reference import Reference, read_model
from edgec.tensors import numpy_dtype
from edgec.tf32 import find_factors, narrowed, products

HALF_RATIO = 4.0
"""Errors of half precision may be so many times those of the model rounded as it says."""
TF32_RATIO = 4.0
"""Errors of TF32 may be so many times those of the model whose factors are rounded so."""
FLIP_RATIO = 2.0
"""Errors behind a quantization may be so many times those of nudged numbers."""


@dataclass(frozen=True)
class _Other:
    """Another model whose outputs called as in `names` are as right, with `inputs` besides."""

    engine: Reference
    names: frozenset[str]
    ratio: float
    inputs: Sample = field(default_factory=dict)


class Standard:
    """The results that a module of `model` must have, with `tf32` one that multiplies in TF32; use
    it as a context manager.

    Raises `VerifyError` where neither ONNX Runtime nor onnx's reference can load the model;
    `warning` says where it is not the former.
    """

    def __init__(
        self, model: onnx.ModelProto | str | os.PathLike[str], *, tf32: bool = False
    ) -> None:
        self.model = read_model(model)
        self.floors = find_floors(self.model)
        halves = find_halves(self.model)
        meant = in_float32(self.model) if halves else self.model
        dtypes = {name: numpy_dtype(code) for name, code in halves.items()}
        outputs = {output.name for output in self.model.graph.output}
        self._flips = find_flips(self.model)
        self._half = behind(self.model, halves) & outputs
        factors = find_factors(meant) if tf32 else frozenset()
        self._tf32 = behind(self.model, products(meant, factors)) & outputs
        self._others: list[_Other] = []
        with ExitStack() as stack:
            self._meant = stack.enter_context(Reference(meant, or_onnx=True, dtypes=dtypes))
            if self._half:
                engine = Reference(rounded(meant, halves), or_onnx=True, dtypes=dtypes)
                self._others.append(_Other(stack.enter_context(engine), self._half, HALF_RATIO))
            if self._tf32:
                engine = Reference(narrowed(meant, factors), or_onnx=True, dtypes=dtypes)
                self._others.append(_Other(stack.enter_context(engine), self._tf32, TF32_RATIO))
            if self._flips:
                engine = Reference(nudged(meant), or_onnx=True, dtypes=dtypes)
                stack.enter_context(engine)
                self._others += [_Other(engine, self._flips, FLIP_RATIO, n) for n in NUDGES]
            self._stack = stack.pop_all()
        self.warning = self._meant.warning

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def run(self, inputs: Mapping[str, Array]) -> tuple[Sample, dict[str, Justify]]:
        """As `Reference.run`."""
        return self._meant.run(inputs)

    def baseline(self, inputs: Mapping[str, Array]) -> Sample | None:
        """As `Reference.baseline`."""
        return self._meant.baseline(inputs)

    def moved(self, inputs: Mapping[str, Array]) -> dict[str, list[Moved]]:
        """By the name of an output that rounding moves far, what it may just as well be."""
        found: dict[str, list[Moved]] = {name: [] for name in self._half | self._tf32 | self._flips}
        for other in self._others:
            try:
                results, _ = other.engine.run({**inputs, **other.inputs})
            except EngineError:
                continue
            for name in other.names:
                found[name].append(Moved(results[name], other.ratio))
        return found
