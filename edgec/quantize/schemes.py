"""Schemes: how many bits weights and activations have."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edgec.errors import UsageError
from edgec.quantize.profiles import Profile
from edgec.quantize.weightonly import Dynamic, Narrowed
from edgec.rewrite import Pass


@dataclass(frozen=True)
class Scheme:
    """`weights` is the element type of weights; `opset` the least that has it. `calibrated` says
    whether activations are quantized by data."""

    name: str
    weights: str
    opset: int
    calibrated: bool = False


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("w8a8", "int8", 13, calibrated=True),
        Scheme("w8a16", "int8", 13),
        Scheme("w4a16", "int4", 21),
        Scheme("w2a16", "int2", 25),
        Scheme("fp16", "float16", 7),
        Scheme("bf16", "bfloat16", 13),
        Scheme("dynamic", "int8", 11),
    )
}

FORMULAS = {
    "linear": 0,
    "power-of-two": 0,
    "logarithmic": 21,
    "float8e4m3fn": 19,
    "float8e5m2": 19,
}
"""Formulas of weights alone, and the least opset that each needs."""


def scheme_of(name: str) -> Scheme:
    """The scheme called `name`. Raises UsageError where there is none."""
    if name not in SCHEMES:
        raise UsageError(f"there is no scheme '{name}'", hint=f"there is: {', '.join(SCHEMES)}")
    return SCHEMES[name]


def pass_of(scheme: Scheme, formula: str, profile: Profile, exclude: Collection[str]) -> Pass:
    """The pass that writes a scheme without calibration. Raises UsageError for a formula that the
    scheme does not have."""
    if formula not in FORMULAS:
        raise UsageError(f"there is no formula '{formula}'", hint=f"it is: {', '.join(FORMULAS)}")
    if formula != "linear":
        bits = "w4a16" if formula == "logarithmic" else "w8a16" if "float8" in formula else None
        if scheme.name not in ((bits,) if bits else ("w8a16", "w4a16", "w2a16")):
            raise UsageError(f"{formula} is no formula of {scheme.name}", where="--formula")
    if scheme.name == "dynamic":
        return Dynamic(profile, exclude)
    return Narrowed(profile, scheme.weights, formula, exclude)
