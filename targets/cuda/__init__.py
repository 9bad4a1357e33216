"""Schedules for NVIDIA GPUs: which loops of a kernel's stage become blocks and threads.

`schedule` takes a stage, the blocks between two launches (`edgec.lower.cuda_stages`), and binds all
its work to thread axes. What TVM refuses to bind runs as one thread: slow, but the same values.
"""

from __future__ import annotations

from tvm import s_tir, tirx

from edgec.targets.cuda.generic import schedule_each
from edgec.targets.cuda.rows import schedule_rows
from edgec.targets.cuda.serial import in_one_thread

RULES = (schedule_rows, schedule_each)


def schedule(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with its loops bound to blocks and threads; it computes the same values, sums in a
    different order apart."""
    for rule in RULES:
        work = s_tir.Schedule(function)
        try:
            if rule(work):
                return work.mod["main"]
        except s_tir.ScheduleError:
            continue
    return in_one_thread(function)
