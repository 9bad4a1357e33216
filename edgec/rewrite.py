"""What a pass is, and the driver that runs passes to a fixed point.

A pass is a frozen dataclass: its fields are its options, its `name` the one used on the command
line, its module's docstring its specification. A `Rewrite` looks at one node at a time, a `Pass` at
the whole graph. Passes only rewrite; running, sorting, removing dead nodes, inferring types,
checking, timing and reporting is the driver's.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import time
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from edgec import collector
from edgec.errors import EdgecError, PassError, UsageError
from edgec.graph import Graph
from edgec.tensors import Node
from edgec.topology import check

Numerics: TypeAlias = Literal[
    "exact", "rounding", "approximate", "float16", "bfloat16", "quantized"
]
"""How far a pass may change results, from nothing to what arithmetic in a narrower type does."""
MAX_ROUNDS = 100
MAX_SWEEPS = 1000
GROWTH = 20


class Skip(Exception):
    """A pass declines, and says why. All guards stand before the first change."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Rewrite:
    """A local rewrite, tried at every node whose op is in `roots`."""

    name: ClassVar[str]
    numerics: ClassVar[Numerics]
    roots: ClassVar[tuple[str, ...]]

    def rewrite(self, node: Node, graph: Graph) -> None:
        """Change the graph around `node`, or raise `Skip` before changing anything."""
        raise NotImplementedError


@dataclass(frozen=True)
class Pass:
    """A rewrite that needs to see the whole graph."""

    name: ClassVar[str]
    numerics: ClassVar[Numerics]

    def run(self, graph: Graph) -> Iterator[Node | tuple[Node, Skip]]:
        """Yield the node of each rewrite once it is done, or the node and why it was left."""
        raise NotImplementedError


AnyPass: TypeAlias = Rewrite | Pass
Verify: TypeAlias = Callable[[Graph, Graph, AnyPass], str | None]


@dataclass
class PassReport:
    """What one pass did: `skips` counts the reasons of its last run, `seconds` is all its time."""

    name: str
    rewrites: int = 0
    seconds: float = 0.0
    skips: Counter[str] = field(default_factory=Counter)
    rolled_back: str = ""


@dataclass(frozen=True)
class Event:
    """Told to `on_event`: a rewrite or a skip (with its `reason`) at `node`, the end of a run."""

    kind: Literal["rewrite", "skip", "pass"]
    name: str
    graph: Graph
    node: str = ""
    reason: str = ""


def optimize(
    graph: Graph,
    passes: Sequence[AnyPass],
    *,
    verify: Verify | None = None,
    stop_after: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> list[PassReport]:
    """Run `passes` in order, in place, again and again until none finds anything.

    `stop_after` ends everything after so many rewrites. `verify(before, after, pass)` sees each run
    that changed something; when it returns a complaint, that run is undone and the pass is not
    tried again. Raises PassError when a pass breaks the graph, or when the passes never finish.
    """
    with collector.frozen():
        return _Driver(graph, passes, verify, stop_after, on_event or (lambda _: None)).optimize()


class _Driver:
    def __init__(
        self,
        graph: Graph,
        passes: Sequence[AnyPass],
        verify: Verify | None,
        stop_after: int | None,
        tell: Callable[[Event], None],
    ) -> None:
        self.graph = graph
        self.passes = passes
        self.verify = verify
        self.left = float("inf") if stop_after is None else stop_after
        self.tell = tell
        self.limit = GROWTH * (100 + sum(1 for _ in graph.nodes()))
        self.done = 0

    def optimize(self) -> list[PassReport]:
        reports = [PassReport(p.name) for p in self.passes]
        check(self.graph.gs)
        quiet_since = [-1] * len(self.passes)
        for _ in range(MAX_ROUNDS):
            before = self.done
            for i, (rewriter, report) in enumerate(zip(self.passes, reports, strict=True)):
                if self.left <= 0:
                    return reports
                if quiet_since[i] != self.done and not report.rolled_back:
                    self.run(rewriter, report)
                    quiet_since[i] = self.done
            if self.done == before:
                return reports
        raise PassError(
            f"no fixed point after {MAX_ROUNDS} rounds; the last one changed "
            + ", ".join(r.name for r in reports if r.rewrites),
            hint="two passes undo each other's work",
        )

    def run(self, rewriter: AnyPass, report: PassReport) -> None:
        """One pass until it is quiet, then clean up, check and, where asked, verify."""
        start = time.perf_counter()
        before = self.graph.copy() if self.verify else None
        done = self.done
        steps = self.sweeps(rewriter) if isinstance(rewriter, Rewrite) else rewriter.run(self.graph)
        report.skips.clear()
        try:
            for step in steps:
                if isinstance(step, tuple):
                    node, skip = step
                    report.skips[skip.reason] += 1
                    self.tell(Event("skip", report.name, self.graph, str(node), skip.reason))
                    continue
                self.done += 1
                report.rewrites += 1
                self.tell(Event("rewrite", report.name, self.graph, str(step)))
                self.left -= 1
                if self.left <= 0:
                    break
                if self.done > self.limit:
                    raise PassError("rewrites without end", where=f"pass '{report.name}'")
            if self.done > done:
                self.clean(report.name)
        except EdgecError:
            raise
        except Exception as error:
            raise PassError(f"internal error: {error!r}", where=f"pass '{report.name}'") from error
        finally:
            report.seconds += time.perf_counter() - start
        if self.done > done and before is not None and self.verify is not None:
            complaint = self.verify(before, self.graph, rewriter)
            if complaint:
                self.graph.restore(before)
                report.rolled_back = complaint
        self.tell(Event("pass", report.name, self.graph))

    def sweeps(self, rewriter: Rewrite) -> Iterator[Node | tuple[Node, Skip]]:
        """Visit all roots until a whole visit changes nothing; only that visit's skips count."""
        roots = frozenset(rewriter.roots)
        for _ in range(MAX_SWEEPS):
            skips: list[tuple[Node, Skip]] = []
            changed = False
            for node in list(self.graph.nodes()):
                if node.op not in roots or node.domain or not node.outputs:
                    continue
                try:
                    rewriter.rewrite(node, self.graph)
                except Skip as skip:
                    skips.append((node, skip.with_traceback(None)))
                else:
                    changed = True
                    yield node
            if not changed:
                yield from skips
                return
        raise PassError(f"no end after {MAX_SWEEPS} sweeps", where=f"pass '{rewriter.name}'")

    def clean(self, name: str) -> None:
        """Remove the dead, sort, infer what is unknown, check."""
        try:
            self.graph.sweep()
            self.graph.infer_shapes()
            check(self.graph.gs)
        except PassError as error:
            where = f"after pass '{name}'" + (f", {error.where}" if error.where else "")
            raise PassError(error.what, where=where, hint=error.hint) from error


def parse(text: str, table: Mapping[str, type[AnyPass]]) -> tuple[AnyPass, ...]:
    """Passes written as `name,name{option=value,other=value}`; `table` has them by name.

    The value of an option of type `tuple[str, ...]` is written as `a+b`, or as nothing.
    Raises UsageError for an unknown pass or option, naming those there are, and for a wrong value.
    """
    passes: list[AnyPass] = []
    rest = text.strip()
    while rest:
        match = re.match(r"\s*([\w-]+)\s*(?:\{([^{}]*)\})?\s*(?:,|$)", rest)
        if match is None:
            raise UsageError(
                f"cannot read {rest!r}", where="passes", hint="write name,name{option=value}"
            )
        name, options = match.groups()
        kind = table[_known(name, table, "pass")]
        passes.append(kind(**_options(kind, options or "", name)))
        rest = rest[match.end() :]
    return tuple(passes)


def _options(kind: type[AnyPass], text: str, name: str) -> dict[str, Any]:
    types = typing.get_type_hints(kind)
    fields = {f.name: types[f.name] for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        key = _known(key.replace("-", "_"), fields, f"option of {name}")
        if not equals:
            raise UsageError(f"option '{key}' of {name} needs a value", hint=f"write {key}=...")
        values[key] = _value(value, fields[key], f"option '{key}' of {name}")
    return values


def _value(text: str, kind: type, where: str) -> Any:
    if typing.get_origin(kind) is tuple:
        names = tuple(part.strip() for part in text.split("+")) if text else ()
        if "" in names:
            raise UsageError(f"{text!r} has an empty name", where=where, hint="write a+b")
        return names
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int:
            return int(text, 0)
        return kind(text)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{text!r} is not of type {kind.__name__}", where=where) from error


def _known(name: str, names: Iterable[str], kind: str) -> str:
    names = list(names)
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise UsageError(
        f"there is no {kind} '{name}'", hint=hint + f"there is: {', '.join(names) or 'none'}"
    )
