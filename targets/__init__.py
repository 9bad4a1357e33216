"""Targets: what differs between devices, as data.

A target is a name such as `x86-64-v3`, `aarch64` or `x86-64-v4+avx512vnni`: a level of an
architecture, described by a table of this folder's TOML files, and the CPU features added to it. A
board such as `n100` is a level with what its processor is beyond it. `host` is an alias that
`resolve` turns into the concrete target of the machine it runs on, so that an artifact never
depends on a name that means something else elsewhere.
"""

from __future__ import annotations

import difflib
import functools
import platform
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgec.errors import TargetError


@dataclass(frozen=True, kw_only=True)
class Target:
    """A concrete target.

    `triple` is LLVM's, `mcpu` and `features` LLVM's names; `cpu_flags` are the names the Linux
    kernel prints in /proc/cpuinfo for everything the code needs, `libc` the floor the library is
    linked against ("glibc 2.17"). `vector_bits` is the width of the widest vector registers and
    `vector_registers` their number, `fma_units` how many of them are multiplied and added a cycle.
    `l1_bytes` and `l2_bytes` are the data caches that one core has to itself. `channel_block` is
    how many channels of an image lie together (`edgec.lower.blocked`). `qemu_cpu` is the processor
    that QEMU emulates for it, empty where it has none. `level` is what a board builds on, empty for
    a level itself; `optional` has LLVM's and Linux's name of each feature that can be added.
    """

    name: str
    summary: str
    arch: str
    triple: str
    mcpu: str
    features: tuple[str, ...] = ()
    cpu_flags: tuple[str, ...]
    vector_bits: int
    vector_registers: int
    fma_units: int
    l1_bytes: int
    l2_bytes: int
    channel_block: int
    libc: str
    qemu_cpu: str = ""
    level: str = ""
    optional: tuple[tuple[str, str], ...] = ()

    @property
    def link_triple(self) -> str:
        """The triple zig links for: LLVM's with the libc floor, "x86_64-linux-gnu.2.17"."""
        return f"{self.triple}.{self.libc.removeprefix('glibc ')}"

    @property
    def fuses_multiply_add(self) -> bool:
        """Whether a * b + c is one instruction."""
        return self.arch == "aarch64" or "fma" in self.cpu_flags

    def facts(self) -> dict[str, object]:
        """What the manifest says of the target."""
        return {
            "name": self.name,
            "triple": self.triple,
            "mcpu": self.mcpu,
            "features": list(self.features),
            "libc": self.libc,
        }


def names() -> list[str]:
    """The names `resolve` takes, without added features: `host`, levels, boards."""
    return ["host", *sorted(_bases(), key=lambda name: (bool(_bases()[name].level), name))]


def resolve(name: str) -> Target:
    """The concrete target called `name`; `host` is this machine.

    Raises:
        TargetError: unknown name or feature, or `host` on a machine edgec cannot compile for.
    """
    if name == "host":
        return host()
    base_name, *extras = name.split("+")
    bases = _bases()
    if base_name not in bases:
        near = difflib.get_close_matches(base_name, names(), n=3, cutoff=0.5)
        known = "did you mean " + " or ".join(near) if near else "known: " + ", ".join(names())
        raise TargetError(
            f"unknown target '{name}'", hint=f"{known}; `edgec targets` lists them all"
        )
    return _with_features(bases[base_name], extras)


def host() -> Target:
    """The target of this machine: the highest level it can run, with the features it adds."""
    flags = host_cpu_flags()
    runnable = [base for base in _bases().values() if not base.level and runs_here(base)]
    if not runnable:
        raise TargetError(
            f"edgec cannot compile for this host ({platform.system()} on {platform.machine()})",
            hint="name the device instead: --target x86-64-v3 or --target aarch64",
        )
    best = by_preference(runnable)[0]
    extras = [feature for feature, flag in best.optional if flag in flags]
    return _with_features(best, extras)


def by_preference(targets: Sequence[Target]) -> list[Target]:
    """`targets`, those first that ask most of the processor: the first that a machine can run is
    the best for it."""
    return sorted(targets, key=lambda target: -len(target.cpu_flags))


@functools.cache
def host_cpu_flags() -> frozenset[str]:
    """The CPU features of this machine, in the words of /proc/cpuinfo; empty where there is
    none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def runs_here(target: Target) -> bool:
    """Whether this machine can run code made for `target` without an emulator."""
    return (
        platform.system() == "Linux"
        and platform.machine() == target.arch
        and host_cpu_flags().issuperset(target.cpu_flags)
    )


def emulator(target: Target) -> str | None:
    """The user-mode QEMU that runs programs for `target`, where it is installed.

    There is none for processors like this host's own: programs ask the kernel what the processor
    can do, and would hear of the host's.
    """
    if not target.qemu_cpu or target.arch == platform.machine():
        return None
    return shutil.which(f"qemu-{target.arch}")


def _with_features(base: Target, extras: list[str]) -> Target:
    if not extras:
        return base
    optional = dict(base.optional)
    for feature in extras:
        if feature not in optional:
            known = ", ".join(optional) or "none"
            raise TargetError(
                f"target '{base.name}' has no feature '{feature}'", hint=f"it takes: {known}"
            )
    ordered = [feature for feature in optional if feature in extras]
    return replace(
        base,
        name="+".join([base.name, *ordered]),
        features=(*base.features, *(f"+{feature}" for feature in ordered)),
        cpu_flags=(*base.cpu_flags, *(optional[feature] for feature in ordered)),
        optional=tuple(item for item in base.optional if item[0] not in ordered),
        qemu_cpu="",
    )


@functools.cache
def _bases() -> Mapping[str, Target]:
    """Levels and boards by name."""
    tables: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        tables |= tomllib.loads(path.read_text(encoding="utf-8"))
    levels = {
        name: Target(name=name, **_as_tuples(facts))
        for name, facts in tables.items()
        if "level" not in facts
    }
    return levels | {
        name: _board(levels, name, _as_tuples(facts))
        for name, facts in tables.items()
        if "level" in facts
    }


def _board(levels: Mapping[str, Target], name: str, facts: dict[str, Any]) -> Target:
    """The level of a board with its own facts; features and flags come to those of the level."""
    base_name, *extras = facts["level"].split("+")
    level = _with_features(levels[base_name], extras)
    for key in ("features", "cpu_flags"):
        facts[key] = (*getattr(level, key), *facts.get(key, ()))
    return replace(level, name=name, **facts)


def _as_tuples(facts: dict[str, Any]) -> dict[str, Any]:
    """A table as fields of `Target`, which hold no lists."""
    plain = {k: v.items() if isinstance(v, dict) else v for k, v in facts.items()}
    return {k: v if isinstance(v, str | int) else tuple(v) for k, v in plain.items()}
