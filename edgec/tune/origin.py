"""What the records of a tuning run say of where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgec.targets import Target
from edgec.targets.cpu.knobs import SPACE_VERSION
from edgec.tune.known import Decisions
from edgec.tune.records import Record, features_key, timestamp
from edgec.tune.task import Task


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the records of a run have in common."""

    target: Target
    threads: int
    machine: str
    edgec: str
    tvm: str
    seed: int

    def key(self, task: Task) -> tuple[str, int, str, int]:
        """Of the records of `task`: kernel, space, target, threads."""
        return task.key, SPACE_VERSION, features_key(self.target), self.threads

    def record(self, task: Task, decisions: Decisions, **facts: Any) -> Record:
        """A record of one candidate, made now."""
        kernel, space, target, threads = self.key(task)
        return Record(
            kernel=kernel,
            space=space,
            target=target,
            threads=threads,
            decisions=decisions,
            machine=self.machine,
            date=timestamp(),
            edgec=self.edgec,
            tvm=self.tvm,
            seed=self.seed,
            label=task.label,
            **facts,
        )
