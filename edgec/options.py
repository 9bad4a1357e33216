"""How to compile: the options, checked, and what they choose."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from edgec.errors import UsageError
from edgec.passes import LEVELS, PASSES
from edgec.proof import LEVELS as PROOFS
from edgec.rewrite import AnyPass, parse


@dataclass(frozen=True)
class Options:
    """How to compile.

    Attributes:
        targets: names of targets, one variant each.
        level: optimisation level, 0 to 3.
        shapes: whole shapes by input name.
        dims: sizes by symbolic dimension; several sizes make several variants.
        states: (output, input) names kept in the instance from one run to the next.
        passes: passes to run instead of the level's, in the syntax of `edgec.rewrite.parse`.
        disable: names of passes of the level to leave out.
        stop_after: end optimisation after so many rewrites.
        name: name of the model in C; by default the file's.
        cc: a C compiler to link with instead of the ziglang package's.
        ndk: the folder of Android's NDK, whose compiler to link with, for Android.
        cuda_path: the folder of a CUDA toolkit, whose NVRTC to compile for a GPU with.
        tf32: let GPUs since Ampere (sm_80) round float32 to TF32, 10 bits of mantissa, to multiply
            it by tensor cores.
        trusted: run ONNX's native code in this process, without the helper that catches crashes.
        require: the least proof that will do: "none", "host-twin", "emulated" or "device".
        jobs: processes that build kernels; by default the processors available.
        records: a store of tuning records (`edgec.tune.records`) to choose schedules by.
        bundled: for the target `host`, where `records` has none, choose by the records that ship
            with edgec for this processor.
        threads: that the module is to be run with: choose by records of so many; by default by
            those of the largest number there is for a kernel.
    """

    targets: tuple[str, ...] = ("host",)
    level: int = 2
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    states: tuple[tuple[str, str], ...] = ()
    passes: str | None = None
    disable: tuple[str, ...] = ()
    stop_after: int | None = None
    name: str | None = None
    cc: str | None = None
    ndk: str | None = None
    cuda_path: str | None = None
    tf32: bool = False
    trusted: bool = False
    require: str = "none"
    jobs: int | None = None
    records: Path | None = None
    bundled: bool = True
    threads: int | None = None


_NOT_IN_THE_RESULT = frozenset(
    ["targets", "trusted", "require", "jobs", "name", "records", "bundled", "threads"]
)
"""Options that change nothing in the artifact beyond what the cache's key has already."""


def check_options(options: Options, print_after: frozenset[str]) -> None:
    """Raises UsageError for an option that names or counts what cannot be."""
    for name in sorted({*options.disable, *print_after}):
        if name not in PASSES:
            raise UsageError(f"there is no pass '{name}'", hint=f"there is: {', '.join(PASSES)}")
    if options.level not in LEVELS:
        raise UsageError(f"there is no level {options.level}", hint="levels are 0 to 3")
    if options.jobs is not None and options.jobs < 1:
        raise UsageError(f"kernels cannot be built by {options.jobs} processes")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"a module cannot be run with {options.threads} threads")
    if options.stop_after is not None and options.stop_after < 0:
        raise UsageError(f"{options.stop_after} is no number of rewrites")
    if options.require not in PROOFS:
        raise UsageError(f"there is no proof '{options.require}'", hint=f"it is: {PROOFS}")


def chosen_passes(options: Options) -> tuple[AnyPass, ...]:
    """The passes that `options` ask for, in order.

    Raises:
        UsageError: an unknown pass or option in `options.passes`.
    """
    passes = LEVELS[options.level] if options.passes is None else parse(options.passes, PASSES)
    return tuple(each for each in passes if each.name not in options.disable)


WINOGRAD_LEVEL = 3
"""From this level on, 3x3 convolutions may be computed by Winograd's filtering."""


def winograd_sizes(options: Options) -> tuple[int, ...]:
    """Sizes of Winograd's tiles to try until one passes verification, 0 for none."""
    return (4, 2, 0) if options.level >= WINOGRAD_LEVEL else (0,)


def facts_of(options: Options) -> list[object]:
    """What of `options` the artifact depends on, besides targets and name."""
    return [
        sorted(value.items()) if isinstance(value, Mapping) else value
        for value in (
            getattr(options, item.name)
            for item in fields(options)
            if item.name not in _NOT_IN_THE_RESULT
        )
    ]


def combinations(dims: Mapping[str, tuple[int, ...]]) -> Iterator[dict[str, int]]:
    """Every choice of one size per symbolic dimension."""
    for sizes in itertools.product(*dims.values()):
        yield dict(zip(dims, sizes, strict=True))
