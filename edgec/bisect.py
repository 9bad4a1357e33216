"""Finding the rewrite that makes a model wrong.

The model is optimised up to its N-th rewrite for chosen N, and each result is held against the
model as it was: a binary search for the least N that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from edgec.errors import PassError
from edgec.graph import Graph
from edgec.optimizer import ModelSource, Pipeline
from edgec.passproof import Complaint, check, choosing, outcomes, samples
from edgec.reproducer import smallest, write_reproducer
from edgec.rewrite import Event, Numerics, optimize


@dataclass(frozen=True)
class Guilty:
    """The `number`-th rewrite, of pass `name` at `node`, is the first to make the model wrong."""

    number: int
    name: str
    node: str
    complaint: str
    reproducer: Path | None = None


@dataclass(frozen=True)
class Bisection:
    """How many rewrites there are, how many prefixes of them were run, and the guilty one."""

    rewrites: int
    runs: int
    guilty: Guilty | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = self.guilty and {
            "number": self.guilty.number,
            "pass": self.guilty.name,
            "node": self.guilty.node,
            "complaint": self.guilty.complaint,
            "reproducer": str(self.guilty.reproducer) if self.guilty.reproducer else None,
        }
        return {"rewrites": self.rewrites, "runs": self.runs, "guilty": found}

    def text(self) -> str:
        """For people."""
        if self.guilty is None:
            return f"none of the {self.rewrites} rewrites changes the results"
        where = f"\nsee {self.guilty.reproducer}" if self.guilty.reproducer else ""
        return (
            f"rewrite {self.guilty.number} of {self.rewrites}, {self.guilty.name} at "
            f"{self.guilty.node}: {self.guilty.complaint}{where}"
        )


def bisect(
    source: ModelSource,
    pipeline: Pipeline,
    reproducers: Path | None = None,
    arguments: Mapping[str, Sequence[str]] | None = None,
) -> Bisection:
    """The first rewrite after which the model is wrong beyond rounding, or breaks a rule.

    The folder `reproducers` receives the least part of the model before it that shows the fault,
    its inputs, both outputs and a command line, in which `arguments` name a pass that is not in the
    table.
    Raises VerifyError where ONNX Runtime cannot run the model as it is, or not twice alike, and
    PassError where a pass fails without a rewrite.
    """
    start = pipeline.load(source)
    passes = pipeline.chosen()
    order: tuple[Numerics, ...] = get_args(Numerics)
    loosest = order[max((order.index(p.numerics) for p in passes), default=0)]
    model = start.to_source_opset()
    expected = outcomes(model, samples(start))
    runs = 0

    def prefix(count: int | None) -> tuple[Graph, list[Event], Complaint | None]:
        nonlocal runs
        runs += 1
        graph = start.copy()
        events: list[Event] = []
        try:
            optimize(graph, passes, stop_after=count, on_event=events.append)
        except PassError as error:
            return graph, _rewrites(events), Complaint(str(error), expected[0], {})
        complaint, _ = check(graph.to_source_opset(), expected, loosest, before=model)
        return graph, _rewrites(events), complaint

    _, events, failed = prefix(pipeline.stop_after)
    if failed is None:
        return Bisection(len(events), runs, None)
    _, _, complaint = prefix(len(events))
    if not events or complaint is None:
        raise PassError(failed.text, hint="this is the fault of no rewrite")
    before, good, bad = start, 0, len(events)
    while bad - good > 1:
        middle = (good + bad) // 2
        graph, _, found = prefix(middle)
        if found is None:
            good, before = middle, graph
        else:
            bad, complaint = middle, found
    guilty = Guilty(bad, events[bad - 1].name, events[bad - 1].node, complaint.text)
    if reproducers is not None:
        [rewriter] = {each for each in passes if each.name == guilty.name}
        given = outcomes(before.to_source_opset(), samples(before))
        least, shown = smallest(before, rewriter, given, complaint)
        command = ["edgec", "bisect", "before.onnx", *choosing(guilty.name, arguments)]
        folder = write_reproducer(reproducers / guilty.name, least, shown, command)
        guilty = replace(guilty, reproducer=folder)
    return Bisection(len(events), runs, guilty)


def _rewrites(events: list[Event]) -> list[Event]:
    return [event for event in events if event.kind == "rewrite"]
