"""Targets: what differs between devices, as data.

A target is a name such as `x86-64-v3`, `aarch64` or `x86-64-v4+avx512vnni`: a base, described by
one TOML file in this folder, and the CPU features added to it. `host` is an alias that `resolve`
turns into the concrete target of the machine it runs on, so that an artifact never depends on a
name that means something else elsewhere.
"""

from __future__ import annotations

import difflib
import functools
import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgec.errors import TargetError


@dataclass(frozen=True)
class Target:
    """A concrete target.

    `triple` is LLVM's, `mcpu` and `features` LLVM's names; `cpu_flags` are the names the Linux
    kernel prints in /proc/cpuinfo for everything the code needs, `libc` the floor the library is
    linked against ("glibc 2.17"). `vector_bits` is the width of the widest vector registers and
    `vector_registers` their number;
    `channel_block` is how many channels of an image lie together (`edgec.lower.blocked`).
    """

    name: str
    summary: str
    arch: str
    triple: str
    mcpu: str
    features: tuple[str, ...]
    cpu_flags: tuple[str, ...]
    vector_bits: int
    vector_registers: int
    channel_block: int
    libc: str
    qemu_cpu: str = "max"
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
    """The names `resolve` takes, without added features."""
    return ["host", *sorted(_bases())]


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
    """The target of this machine: the highest base it can run, with the features it adds."""
    arch = platform.machine()
    flags = host_cpu_flags()
    runnable = [
        base
        for base in _bases().values()
        if base.arch == arch and flags.issuperset(base.cpu_flags) and base.triple.find("linux") > 0
    ]
    if platform.system() != "Linux" or not runnable:
        raise TargetError(
            f"edgec cannot compile for this host ({platform.system()} on {arch})",
            hint="name the device instead: --target x86-64-v3 or --target aarch64",
        )
    best = max(runnable, key=lambda base: len(base.cpu_flags))
    extras = [feature for feature, flag in best.optional if flag in flags]
    return _with_features(best, extras)


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
    )


@functools.cache
def _bases() -> Mapping[str, Target]:
    bases: dict[str, Target] = {}
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for name, facts in tomllib.loads(path.read_text(encoding="utf-8")).items():
            facts["features"] = tuple(facts.get("features", ()))
            facts["cpu_flags"] = tuple(facts["cpu_flags"])
            facts["optional"] = tuple(facts.get("optional", {}).items())
            bases[name] = Target(name=name, **facts)
    return bases
