"""Targets: what differs between devices, as data.

A target is a name such as `x86-64-v3`, `aarch64` or `x86-64-v4+avx512vnni`: a level of an
architecture, described by a table of this folder's TOML files, and the CPU features added to it. A
board such as `rpi5` is a level with what its processor is beyond it; a file `my_board.toml` of the
user's describes one more. `host` and `jetson` are aliases that `resolve` turns into a concrete
target, so that an artifact never depends on a name that means something else elsewhere.
"""

from __future__ import annotations

import functools
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgec.errors import ArtifactError, TargetError
from edgec.targets.tables import (
    ADDED,
    OWN_SUFFIX,
    Table,
    built_in,
    nearest,
    own,
    place_of,
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A concrete target.

    `arch` is the machine as `uname -m` names it, `triple` is LLVM's, `zig` and `zig_static` are
    zig's triples for libraries and for static programs, `ndk` is Android's; `mcpu` and `features`
    are LLVM's names; `cpu_flags` are the names the Linux kernel prints in /proc/cpuinfo for
    everything the code needs, `libc` what the library is linked against: the floor "glibc 2.17" or
    "bionic 24", or "musl".
    `vector_bits` is the width of the widest vector registers and `vector_registers` their number,
    `fma_units` how many of them are multiplied and added a cycle. With `lane_operands` a
    multiply-add takes one operand from a lane of a register, and none from memory; with
    `nan_maximum` the maximum of two floats is an instruction, and NaN where one of them is.
    `l1_bytes` and `l2_bytes` are the data caches that one core has to itself, `l3_bytes` is shared
    by all. `channel_block` is how many channels of an image lie together (`edgec.lower.blocked`).
    `qemu` is QEMU's program, `qemu_cpu` the processor that it emulates, empty where it has none,
    `qemu_most` one with all that can be added. `level` is what a board builds on, empty for a level
    itself; `optional` has LLVM's and Linux's name of each feature that can be added.

    Boards alone have `cores`, their number by kind, fastest first, `models`, words by which a board
    or its processor names itself, `ram_mib`, the sizes of memory they come with, and the GPU: what
    it is, its compute capability ("sm_87"), and the versions of JetPack and CUDA that are its
    driver's.
    """

    name: str
    summary: str
    arch: str
    triple: str
    zig: str
    zig_static: str
    ndk: str
    mcpu: str
    features: tuple[str, ...] = ()
    cpu_flags: tuple[str, ...]
    vector_bits: int
    vector_registers: int
    fma_units: int
    lane_operands: bool = False
    nan_maximum: bool = False
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int = 0
    channel_block: int
    libc: str
    qemu: str
    qemu_cpu: str = ""
    qemu_most: str = ""
    level: str = ""
    optional: tuple[tuple[str, str], ...] = ()
    cores: tuple[tuple[str, int], ...] = ()
    models: tuple[str, ...] = ()
    ram_mib: tuple[int, ...] = ()
    gpu: str = ""
    gpu_arch: str = ""
    jetpack: str = ""
    cuda: str = ""
    cuda_path: str = ""

    @property
    def link_triple(self) -> str:
        """The triple of libraries: zig's with the libc floor, "x86_64-linux-gnu.2.17", or musl's;
        Android's with the API level, "aarch64-linux-android24"."""
        kind, _, floor = self.libc.partition(" ")
        return {"musl": self.zig_static, "bionic": f"{self.ndk}{floor}"}.get(
            kind, f"{self.zig}.{floor}"
        )

    @property
    def fuses_multiply_add(self) -> bool:
        """Whether a * b + c is one instruction."""
        return not {"fma", "asimd", "vfpv4"}.isdisjoint(self.cpu_flags)

    @property
    def widens_halves(self) -> bool:
        """Whether it has an instruction that makes float32 of float16."""
        return not {"f16c", "asimd", "vfpv4"}.isdisjoint(self.cpu_flags)

    @property
    def dots(self) -> str:
        """How kernels multiply bytes: activations "unsigned", in "words" too where x86 multiplies
        two of 16 bits in as many instructions as four of 8 or fewer, with AVX-512 VNNI or AVX2
        alone; or "signed" for Arm's SDOT, or signed in "pairs" of two for NEON without that
        (`edgec.lower.dot`). A GPU has kernels in common with its processor, and they are of the
        first kind."""
        if self.gpu_arch:
            return "unsigned"
        if self.arch not in ("aarch64", "armv7l"):
            flags = set(self.cpu_flags)
            words = "avx512_vnni" in flags or ("avx2" in flags and "avx_vnni" not in flags)
            return "words" if words else "unsigned"
        return "signed" if "asimddp" in self.cpu_flags else "pairs"

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the target: all that `from_facts` makes it again from, and so
        not the place of a toolkit on this machine."""
        facts = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        del facts["cuda_path"]
        return facts | {"optional": dict(self.optional), "cores": dict(self.cores)}


def from_facts(facts: Mapping[str, Any]) -> Target:
    """The target that `Target.facts` describes, also where this edgec does not know its name.

    Raises:
        ArtifactError: they describe none.
    """
    known = {item.name for item in fields(Target)}
    try:
        return Target(**{key: _frozen(value) for key, value in facts.items() if key in known})
    except TypeError as error:
        raise ArtifactError(
            f"describes its target wrongly: {error}", hint="compile the model again"
        ) from error


def names() -> list[str]:
    """The names `resolve` takes, without added features: `host`, levels, boards, aliases."""
    boards = _bases()
    ordered = sorted(boards, key=lambda name: (bool(boards[name].level), name))
    return ["host", *ordered, *sorted(aliases())]


def aliases() -> dict[str, tuple[str, str]]:
    """Names that stand for a board: the board's name, and what the alias means."""
    tables = built_in().items()
    return {name: (t["alias"], t["meaning"]) for name, t in tables if "alias" in t}


def resolve(name: str) -> Target:
    """The concrete target called `name`; `host` is this machine, FILE.toml the user's own board.

    Raises:
        TargetError: unknown name or feature, a file that describes no board, or `host` on a
            machine edgec cannot compile for.
    """
    if name == "host":
        return host()
    if name.endswith(OWN_SUFFIX):
        return _own(Path(name))
    base_name, *extras = name.split("+")
    base_name = aliases().get(base_name, (base_name,))[0]
    bases = _bases()
    if base_name not in bases:
        raise TargetError(
            f"unknown target '{name}'",
            hint=f"{nearest(base_name, names())}; `edgec targets` lists them all, and a board of "
            "your own is a file: --target my_board.toml",
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


def machine() -> str:
    """This machine as `uname -m` names it to a process like this one: a 32-bit Python on 64-bit
    Arm is on an armv7l."""
    name = platform.machine()
    return "armv7l" if name in ("aarch64", "armv8l") and sys.maxsize < 1 << 32 else name


def for_android(target: Target) -> Target:
    """The same with Android's libc, at the level that all of Android 7 and later has."""
    return target if target.libc.startswith("bionic") else replace(target, libc="bionic 24")


def runs_here(target: Target) -> bool:
    """Whether this machine can run code made for `target` without an emulator."""
    return (
        platform.system() == "Linux"
        and machine() == target.arch
        and host_cpu_flags().issuperset(target.cpu_flags)
    )


def emulator(target: Target) -> str | None:
    """The user-mode QEMU that runs programs for `target`, where it is installed.

    There is none for processors like this host's own: programs ask the kernel what the processor
    can do, and would hear of the host's.
    """
    if not target.qemu_cpu or target.arch == machine():
        return None
    return shutil.which(target.qemu)


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
        qemu_cpu=base.qemu_most,
    )


@functools.cache
def _bases() -> Mapping[str, Target]:
    """Levels and boards by name."""
    tables = built_in()
    bases: dict[str, Target] = {
        name: Target(name=name, **{key: _frozen(value) for key, value in table.items()})
        for name, table in tables.items()
        if "level" not in table and "alias" not in table
    }
    for name, table in tables.items():
        if "level" in table:
            bases[name] = _board(bases, name, table)
    return bases


def _own(path: Path) -> Target:
    """The board that a file of the user's describes."""
    name, table = own(path)
    try:
        return _board(_bases(), name, table)
    except TargetError as error:
        raise TargetError(error.what, where=place_of(path, "level"), hint=error.hint) from error


def _board(bases: Mapping[str, Target], name: str, table: Table) -> Target:
    """A base with a board's own facts; features and flags come to those of the base."""
    facts = {key: _frozen(value) for key, value in table.items()}
    base_name, *extras = facts["level"].split("+")
    base = _with_features(bases[base_name], extras)
    for key in ADDED:
        facts[key] = tuple(dict.fromkeys((*getattr(base, key), *facts.get(key, ()))))
    facts.setdefault("summary", f"a board of your own, on {facts['level']}")
    return replace(base, name=name, **facts)


def _frozen(value: Any) -> Any:
    """A value of TOML or JSON as a field of `Target`, which hold no lists and no dicts."""
    if isinstance(value, dict):
        return tuple(value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
