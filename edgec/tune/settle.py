"""What wins by itself has to win in the model, too.

A kernel reads what another has just written. Where the two divide an image among threads in
different ways, by rows and by channels, much of what a thread reads lies in another core's cache,
which measuring a kernel by itself does not show. So at the end every kernel is timed in the model
compiled by the records, beside the model of the rules. Where records made the model slower there,
they are corrected, and the kernel's next best choice takes their place, for as long as that makes
the model faster: what one kernel loses may be another's fault.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from edgec.data import Sample
from edgec.lower.build import kernel_key
from edgec.lower.extract import Lowered
from edgec.plan import Plan
from edgec.targets.cpu.knobs import SPACE_VERSION
from edgec.tune import whole
from edgec.tune.kernel import function_of
from edgec.tune.lookup import Lookup
from edgec.tune.origin import Origin
from edgec.tune.record import Record, features_key, timestamp
from edgec.tune.records import Store

ATTEMPTS = 3
"""So many times records are corrected at most."""

TURNS = 3
"""Profiles of each of the two models, in alternation."""

Seconds = Mapping[str, float]
"""Seconds of a run that the calls of a kernel take, by the kernel's name."""


@dataclass(frozen=True)
class Neighbours:
    """Kernels by name: the structure of each, and which others read what it writes."""

    structure: Mapping[str, str]
    readers: Mapping[str, frozenset[str]]

    @staticmethod
    def of(lowered: Lowered, plan: Plan) -> Neighbours:
        """Those of a model."""
        structure: dict[str, str] = {}
        writers: dict[int, set[str]] = defaultdict(set)
        calls = list(plan.program.calls())
        for call in calls:
            structure[call.kernel] = kernel_key(function_of(call, lowered, plan))
            for output in call.outputs:
                writers[output].add(call.kernel)
        readers: dict[str, set[str]] = defaultdict(set)
        for call in calls:
            for writer in set().union(*(writers[number] for number in call.inputs)):
                readers[writer].add(call.kernel)
        return Neighbours(structure, {name: frozenset(found) for name, found in readers.items()})

    def slower(self, tuned: Mapping[str, Record], before: Seconds, after: Seconds) -> list[Record]:
        """Corrected records of those kernels, by structure, that `tuned` made slower in the model:
        themselves, or more than they gained, kernels that read their results and are as before.

        `before` and `after` are times in the models of the rules and of `tuned`.
        """
        names: dict[str, set[str]] = defaultdict(set)
        for name, structure in self.structure.items():
            names[structure].add(name)
        corrected = []
        for structure, record in tuned.items():
            own = names[structure]
            around = set().union(*(self.readers.get(name, frozenset()) for name in own)) - own
            changed = own | {name for name in around if self.structure[name] not in tuned}
            rule = sum(before.get(name, 0.0) for name in own)
            added = sum(after.get(name, 0.0) - before.get(name, 0.0) for name in changed)
            if rule and added > 0 and record.baseline:
                seconds = record.baseline * (1 + added / rule)
                corrected.append(replace(record, seconds=seconds, date=timestamp()))
        return corrected


def settle(
    compiled: Callable[[], Path],
    by_rule: Path,
    sample: Sample,
    neighbours: Neighbours,
    origin: Origin,
    store: Store,
) -> int:
    """Correct the records in `store` of what is slower in the model; returns of how many kernels.

    `compiled` compiles the model by the records as they are, `by_rule` is that of the rules.

    Raises:
        EngineError: a model cannot be run.
        TuningError: the records cannot be kept.
    """
    kernels = set(neighbours.structure.values())
    lookup = Lookup((("records", store),), origin.threads)
    corrections: list[Record] = []
    replaced: list[Record] = []
    least = math.inf
    for attempt in range(ATTEMPTS + 1):
        found = lookup.find(kernels, SPACE_VERSION, features_key(origin.target))
        if not found:
            break
        before, after = _alternate(by_rule, compiled(), sample, origin.threads)
        share = sum(after.values()) / sum(before.values())
        if share >= least:
            store.append(*(replace(record, date=timestamp()) for record in replaced))
            del corrections[-len(replaced) :]
            break
        least = share
        tuned = {structure: choice.record for structure, choice in found.items()}
        wrong = neighbours.slower(tuned, before, after) if attempt < ATTEMPTS else []
        if not wrong:
            break
        store.append(*wrong)
        corrections += wrong
        replaced = [tuned[record.kernel] for record in wrong]
    return len({record.kernel for record in corrections})


def _alternate(first: Path, second: Path, sample: Sample, threads: int) -> tuple[Seconds, Seconds]:
    """Each kernel's median time of several profiles of both models."""
    times: tuple[dict[str, list[float]], ...] = defaultdict(list), defaultdict(list)
    for _ in range(TURNS):
        for artifact, found in zip((first, second), times, strict=True):
            for name, seconds in whole.kernel_seconds(artifact, sample, threads).items():
                found[name].append(seconds)
    before, after = ({name: median(all_) for name, all_ in each.items()} for each in times)
    return before, after
