"""Tasks: the kernels of a model that are worth tuning.

A kernel that several calls share, or several models, is one task: it is known by its structure. A
task weighs what its calls take of a run of the model, measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgec.errors import UsageError
from edgec.lower.build import kernel_key
from edgec.lower.extract import Lowered
from edgec.plan import Plan
from edgec.profilereport import label_of
from edgec.program import Call
from edgec.tune.kernel import Kernel, function_of

WORTH = 0.97
"""The costliest kernels that together take this share of the model's time are tuned."""


@dataclass(frozen=True)
class Task:
    """One kernel to tune.

    `key` is its structure's (`edgec.lower.build.kernel_key`), `label` says what it computes,
    `seconds` is the time that all its calls take of a run of the model by the rule's schedule.
    """

    key: str
    kernel: Kernel
    label: str
    seconds: float

    @property
    def operators(self) -> frozenset[str]:
        """The operators that the kernel fuses: "conv2d", "add", ..."""
        return frozenset(label_of(self.kernel.name).split())


@dataclass(frozen=True)
class Tasks:
    """What is tuned, the costliest first, and the seconds of a run of the model that all else
    takes."""

    chosen: tuple[Task, ...]
    rest: float


def tasks(
    lowered: Lowered, plan: Plan, seconds: Mapping[str, float], only: Sequence[str] = ()
) -> Tasks:
    """The tasks of a model whose kernels take `seconds` of a run, by the names that steps call.

    `only` names operators: kernels without any of them are not tuned.

    Raises:
        UsageError: no kernel has an operator of `only`.
    """
    groups: dict[str, dict[str, Call]] = defaultdict(dict)
    for call in plan.program.calls():
        groups[kernel_key(function_of(call, lowered, plan))].setdefault(call.kernel, call)
    found = [_task(key, calls, lowered, plan, seconds) for key, calls in groups.items()]
    found.sort(key=lambda task: -task.seconds)
    whole = sum(task.seconds for task in found)
    known = sorted({operator for task in found for operator in task.operators})
    if only and not set(only) & set(known):
        raise UsageError(
            f"no kernel of the model has {' or '.join(only)}",
            where="--only",
            hint="its kernels have: " + ", ".join(known),
        )
    chosen: list[Task] = []
    passed = 0.0
    for task in found:
        if passed >= WORTH * whole:
            break
        passed += task.seconds
        if not only or task.operators & set(only):
            chosen.append(task)
    return Tasks(tuple(chosen), whole - sum(task.seconds for task in chosen))


def _task(
    key: str,
    calls: Mapping[str, Call],
    lowered: Lowered,
    plan: Plan,
    seconds: Mapping[str, float],
) -> Task:
    """The task of kernels of one structure, by the costliest of them."""
    name = max(calls, key=lambda name: seconds.get(name, 0.0))
    kernel = Kernel.of(calls[name], lowered, plan)
    first, *_, last = kernel.function.params
    shapes = ("x".join(str(int(size)) for size in param.shape) for param in (first, last))
    label = f"{label_of(name)} {last.dtype} {' -> '.join(shapes)}"
    return Task(key, kernel, label, sum(seconds.get(each, 0.0) for each in calls))
