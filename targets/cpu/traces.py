"""MetaSchedule's own space, for kernels that no rule is made for.

It is one knob (`edgec.tune.trace.KNOB`): the steps of a schedule as MetaSchedule's JSON, taken
instead of the rule's. TVM's `PostOrderApply` makes sketches of a kernel, whose tile sizes are then
drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from edgec.targets import Target

_DRAWS = 24
"""Draws of each sketch's tile sizes."""

_CORES = 4
"""That MetaSchedule is to have work for; few enough for boards."""


class Traces(Sequence[str]):
    """The options of the knob: "" for the rule, then traces, drawn when they are first looked at.

    Any other trace is among them too, as one that comes from elsewhere. Where not `wanted`, none is
    drawn.
    """

    def __init__(self, function: tirx.PrimFunc, target: Target, wanted: Callable[[], bool]) -> None:
        self._function, self._target, self._wanted = function, target, wanted
        self._drawn: list[str] = []

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str)

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._all()[index]

    def _all(self) -> list[str]:
        if not self._drawn:
            drawn = _draws(self._function, self._target) if self._wanted() else []
            self._drawn = list(dict.fromkeys(["", *drawn]))
        return self._drawn


def by_trace(function: tirx.PrimFunc, trace: str) -> tirx.PrimFunc:
    """`function` with its loops arranged as `trace` says.

    Raises:
        s_tir.ScheduleError: the trace is not one of this kernel's.
    """
    work = s_tir.Schedule(function)
    s_tir.Trace.apply_json_to_schedule(tvm_ffi.convert(json.loads(trace)), work)
    return work.mod["main"]


def _draws(function: tirx.PrimFunc, target: Target) -> Iterator[str]:
    from tvm.s_tir import meta_schedule

    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    facts = {"kind": "llvm", "mtriple": target.triple, "mcpu": target.mcpu, "num-cores": _CORES}
    generator = meta_schedule.space_generator.PostOrderApply(
        sch_rules="llvm", postprocs="llvm", mutator_probs="llvm"
    )
    context = _context(module, tvm.target.Target(facts), generator)
    for sketch in context.generate_design_space():
        steps = s_tir.Trace(sketch.trace.insts, {})
        for seed in range(1, _DRAWS + 1):
            work = s_tir.Schedule(module, seed=seed)
            try:
                steps.apply_to_schedule(work, remove_postproc=True)
            except s_tir.ScheduleError:
                continue
            if all(postproc.apply(work) for postproc in generator.postprocs):
                yield json.dumps(_plain(work.trace.as_json()), separators=(",", ":"))


def _context(module: tvm.IRModule, target: tvm.target.Target, generator: Any) -> Any:
    """A `TuneContext` without the import of every tensor intrinsic, 45 s, that its own constructor
    begins with."""
    from tvm.s_tir import meta_schedule
    from tvm.s_tir.meta_schedule import _ffi_api

    context = meta_schedule.TuneContext.__new__(meta_schedule.TuneContext)
    threads, seed = 1, 1
    context.__init_handle_by_constructor__(
        _ffi_api.TuneContext, module, target, generator, None, "main", threads, seed, None
    )
    _ffi_api.TuneContextInitialize(context)
    return context


def _plain(value: Any) -> Any:
    """TVM's containers, strings and numbers as Python's."""
    if isinstance(value, tirx.IntImm | tirx.FloatImm):
        return value.value
    if isinstance(value, str):
        return str(value)
    return value if value is None or isinstance(value, int | float) else list(map(_plain, value))
