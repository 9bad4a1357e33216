"""Which gate a target has: measured where its code runs here, by a model elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from edgec import targets
from edgec.cache import Cache
from edgec.errors import EdgecError, UsageError
from edgec.quantize.gate import Verdict, judge
from edgec.quantize.maker import Maker
from edgec.quantize.modelled import modelled
from edgec.quantize.plan import structure
from edgec.quantize.profiles import profiles

GATES = ("auto", "measure", "model", "off")

WITHOUT_TARGET = "x86-64-v4+avx512vnni"

OnEvent = Callable[[Mapping[str, Any]], None]


def gate(
    maker: Maker, profile: str, how: str, notes: list[str], on_event: OnEvent = lambda event: None
) -> Verdict | None:
    """What stays in floats because that is faster on the target that `profile` names; None where
    there is no gate: `how` is "off", or "auto" and the profile is no target's.

    Raises UsageError for an unknown `how`, and for "measure" or "model" without a target.
    """
    if how not in GATES:
        raise UsageError(f"there is no gate '{how}'", hint=f"it is: {', '.join(GATES)}")
    if how == "off" or (how == "auto" and profile in profiles()):
        return None
    if profile in profiles():
        raise UsageError(
            f"'{profile}' is no target: nothing can be timed for it",
            where="--gate",
            hint="--profile host",
        )
    target = targets.resolve(profile)
    if how == "auto":
        how = "measure" if targets.runs_here(target) and not target.cores else "model"
    if how == "measure":
        if not targets.runs_here(target):
            raise UsageError(
                f"this machine cannot run code for '{profile}'", where="--gate", hint="--gate model"
            )
        from edgec.quantize.timed import gate_by_measuring

        on_event({"event": "stage", "stage": "speed gate", "state": "start"})
        try:
            return gate_by_measuring(maker, profile, Cache.default())
        except EdgecError as error:
            notes.append(f"the speed gate goes by a model, since compiling failed: {error.what}")
    units = structure(maker.graph, maker.profile, maker.exclude).units
    return judge(maker.graph, units, modelled(units, target))


def target_of(profile: str) -> targets.Target:
    """The target that `profile` names, or one for all profiles that are none's: it has products of
    bytes."""
    return targets.resolve(WITHOUT_TARGET if profile in profiles() else profile)


def gated(maker: Maker, verdict: Verdict) -> Maker:
    """`maker`, keeping what the gate decided in floats."""
    return replace(maker, exclude={*maker.exclude, *verdict.floats})
