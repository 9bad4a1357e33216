"""Profiles: what a target computes well in integers, as data (`profiles.toml`)."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec import targets
from edgec.errors import TargetError, UsageError


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A row of `profiles.toml`, which says what the fields mean.

    `per_channel` gives each channel of a weight its own scale; `inputs` is the type of the model's
    inputs, where that is not the one of activations.
    """

    name: str
    summary: str
    activations: str
    symmetric: bool
    products: frozenset[str]
    followers: frozenset[str]
    tables: frozenset[str]
    moves: frozenset[str]
    per_channel: bool = True
    inputs: str = ""


def resolve(name: str) -> Profile:
    """The profile called `name`, or edgec's own for a target of that name.

    Raises UsageError where there is neither.
    """
    known = profiles()
    if name in known:
        return known[name]
    try:
        targets.resolve(name)
    except TargetError as error:
        raise UsageError(
            f"there is no profile '{name}'",
            hint=f"there is: {', '.join(known)}, or a target: {error.hint}",
        ) from error
    return known["edgec"]


@functools.cache
def profiles() -> Mapping[str, Profile]:
    """All profiles by name."""
    path = Path(__file__).with_name("profiles.toml")
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: _profile(name, tables) for name in tables}


def _profile(name: str, tables: Mapping[str, Mapping[str, Any]]) -> Profile:
    own = dict(tables[name])
    facts = dict(tables.get(own.pop("base", ""), {})) | own
    sets = {key: frozenset(value) for key, value in facts.items() if isinstance(value, list)}
    return Profile(name=name, **(facts | sets))
