"""Schedules for CPUs: how a kernel's loops are tiled, vectorised and shared among threads.

`RULES` is tried in order; the first rule that takes a kernel schedules it. A rule is a function
`rule(schedule, target) -> bool` over TVM's `s_tir.Schedule`; it declines, before it changes
anything, by returning False. The last rule takes everything.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import s_tir, tirx

from edgec.targets import Target
from edgec.targets.cpu.blocks import inline_cheap_producers
from edgec.targets.cpu.conv2d import schedule_conv2d
from edgec.targets.cpu.elementwise import schedule_elementwise
from edgec.targets.cpu.matmul import schedule_matmul
from edgec.targets.cpu.reduction import schedule_reduction

Rule = Callable[[s_tir.Schedule, Target], bool]

RULES: tuple[Rule, ...] = (
    schedule_conv2d,
    schedule_matmul,
    schedule_reduction,
    schedule_elementwise,
)


def schedule(function: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """`function` with its loops arranged for `target`; the result computes the same values, sums in
    a different order apart."""
    work = s_tir.Schedule(function)
    inline_cheap_producers(work)
    for rule in RULES:
        if rule(work, target):
            break
    return work.mod["main"]
