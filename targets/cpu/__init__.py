"""Schedules for CPUs: how a kernel's loops are tiled, vectorised and shared among threads.

`RULES` is tried in order; the first rule that takes a kernel schedules it. A rule is a function
`rule(schedule, target, choose) -> bool` over TVM's `s_tir.Schedule`; it declines, before it changes
anything, by returning False. The last rule takes everything. What a rule chooses among, it asks
`choose` for (`edgec.targets.cpu.knobs`).
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import s_tir, tirx

from edgec.targets import Target
from edgec.targets.cpu.attention import schedule_attention
from edgec.targets.cpu.blocks import inline_cheap_producers
from edgec.targets.cpu.chain import schedule_chain
from edgec.targets.cpu.conv2d import schedule_conv2d
from edgec.targets.cpu.conv_transpose import schedule_conv_transpose
from edgec.targets.cpu.depthwise_quads import schedule_depthwise_quads
from edgec.targets.cpu.elementwise import schedule_elementwise
from edgec.targets.cpu.image import schedule_image
from edgec.targets.cpu.knobs import Choose, by_rule
from edgec.targets.cpu.matmul import schedule_matmul
from edgec.targets.cpu.packed_conv import schedule_packed_conv
from edgec.targets.cpu.packed_matmul import schedule_packed_matmul
from edgec.targets.cpu.prefetch import insert_prefetches
from edgec.targets.cpu.quads import schedule_quads
from edgec.targets.cpu.reduction import schedule_reduction
from edgec.targets.cpu.rows import schedule_rows
from edgec.targets.cpu.traces import Traces, by_trace
from edgec.targets.cpu.transpose import schedule_transpose
from edgec.targets.cpu.winograd import schedule_winograd
from edgec.tune.trace import KNOB

Rule = Callable[[s_tir.Schedule, Target, Choose], bool]

RULES: tuple[Rule, ...] = (
    schedule_conv2d,
    schedule_chain,
    schedule_depthwise_quads,
    schedule_winograd,
    schedule_conv_transpose,
    schedule_attention,
    schedule_matmul,
    schedule_packed_matmul,
    schedule_packed_conv,
    schedule_quads,
    schedule_rows,
    schedule_reduction,
    schedule_transpose,
    schedule_image,
    schedule_elementwise,
)

_GENERIC = RULES[-4:]
"""Rules for whatever comes; beside them, tuning looks through MetaSchedule's own space."""


def schedule(
    function: tirx.PrimFunc, target: Target, choose: Choose = by_rule, *, strict: bool = False
) -> tirx.PrimFunc:
    """`function` with its loops arranged for `target`; the result computes the same values, sums in
    a different order apart.

    A rule that TVM refuses halfway is passed over: a slower kernel beats none. With `strict` its
    `ScheduleError` is raised.
    """

    def is_generic() -> bool:
        return _scheduled(function, RULES[: -len(_GENERIC)], target, by_rule, strict) is None

    trace = choose(KNOB, Traces(function, target, is_generic), "")
    if trace:
        return by_trace(function, str(trace))
    return _scheduled(function, RULES, target, choose, strict) or function


def _scheduled(
    function: tirx.PrimFunc,
    rules: tuple[Rule, ...],
    target: Target,
    choose: Choose,
    strict: bool,
) -> tirx.PrimFunc | None:
    """`function` by the first of `rules` that takes it; None where none does."""
    for rule in rules:
        work = s_tir.Schedule(function)
        try:
            inline_cheap_producers(work)
            if rule(work, target, choose):
                return insert_prefetches(work.mod["main"])
        except s_tir.ScheduleError:
            if strict:
                raise
    return None
