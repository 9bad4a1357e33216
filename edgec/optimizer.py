"""Optimising a model: which passes run on it, and the optimised model at its own opset."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import onnx

from edgec.errors import UsageError
from edgec.external import save_model
from edgec.graph import Graph, load
from edgec.inspect import describe
from edgec.passes import LEVELS, NEWER_OPSET_LEVEL, PASSES
from edgec.rewrite import AnyPass, Event, Pass, PassReport, Rewrite, Verify, parse
from edgec.rewrite import optimize as run_passes

ModelSource: TypeAlias = str | os.PathLike[str] | onnx.ModelProto


@dataclass(frozen=True)
class Pipeline:
    """Which passes run, and how.

    Attributes:
        passes: the passes, in order, instead of those of the level; names in the syntax of
            `edgec.rewrite.parse`, or pass objects.
        level: optimisation level, 0 to 3. At level 3 the written model may need a newer opset than
            the source has, where a fused operator does.
        disable: names of passes to leave out.
        extra: pass objects that run after the others.
        opset: what the result is written at; by default the source's. Passes make no operator that
            is newer.
        shapes: whole shapes by input name.
        dims: sizes by symbolic dimension; what is given none stays symbolic.
        stop_after: end after so many rewrites.
        trusted: run ONNX's native code in this process, without the helper that catches crashes.
    """

    passes: str | Sequence[AnyPass | str] | None = None
    level: int = 2
    disable: Sequence[str] = ()
    extra: Sequence[AnyPass] = ()
    opset: int | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    stop_after: int | None = None
    trusted: bool = False

    def chosen(self) -> tuple[AnyPass, ...]:
        """The passes in order. Raises UsageError for a name or a number that cannot be."""
        if self.level not in LEVELS:
            raise UsageError(f"there is no level {self.level}", hint="levels are 0 to 3")
        if self.stop_after is not None and self.stop_after < 0:
            raise UsageError(f"{self.stop_after} is no number of rewrites")
        newest = onnx.defs.onnx_opset_version()
        if self.opset is not None and not 1 <= self.opset <= newest:
            raise UsageError(f"there is no opset {self.opset}", hint=f"{newest} is the newest")
        passes: list[AnyPass] = []
        given = [self.passes] if isinstance(self.passes, str) else self.passes
        for item in LEVELS[self.level] if given is None else given:
            passes += parse(item, PASSES) if isinstance(item, str) else (_checked(item),)
        passes += map(_checked, self.extra)
        check_names(self.disable, passes)
        return tuple(each for each in passes if each.name not in self.disable)

    def load(self, source: ModelSource, notes: list[str] | None = None) -> Graph:
        """The graph that the passes are to run on."""
        graph = load(
            source,
            shapes=self.shapes,
            dims=self.dims,
            symbolic=True,
            assume_batch=False,
            trusted=self.trusted,
            notes=notes,
        )
        if self.opset is not None:
            graph.result_opset = self.opset
            graph.opset_limit = min(self.opset, graph.opset)
        elif self.level >= NEWER_OPSET_LEVEL:
            graph.opset_limit = graph.opset
        return graph


@dataclass(frozen=True)
class Optimized:
    """An optimised model, and what was done.

    `before` and `after` are cards of `edgec.inspect.describe`, `seconds` the time of the passes
    without verification, `external` whether the source kept its tensors in other files.
    """

    model: onnx.ModelProto
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    passes: Sequence[PassReport]
    notes: Sequence[str]
    external: bool

    @property
    def seconds(self) -> float:
        return sum(report.seconds for report in self.passes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, atomically; see `edgec.external.save_model`."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        save_model(copy, Path(path), external=self.external)


def optimize(
    source: ModelSource,
    passes: str | Sequence[AnyPass | str] | None = None,
    *,
    level: int = 2,
    verify: bool = False,
    **options: Any,
) -> onnx.ModelProto:
    """`source` optimised, at its own opset unless `options` name another as `opset`.

    `passes` replace those of the `level`: pass objects or names as in `a,b{option=1}`. With
    `verify`, ONNX Runtime runs the model before and after every pass, and one that changes a result
    is undone. `options` are the other fields of `Pipeline`.

    Raises:
        EdgecError: what went wrong, by stage; see `edgec.errors`.
    """
    pipeline = Pipeline(passes, level, **options)
    if not verify:
        return optimize_model(source, pipeline).model
    from edgec.passproof import PassProof

    return optimize_model(source, pipeline, verify=PassProof()).model


def optimize_model(
    source: ModelSource,
    pipeline: Pipeline,
    *,
    verify: Verify | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Optimized:
    """Load `source`, run the passes, and say what they did; `verify` as the driver takes it."""
    chosen = pipeline.chosen()
    notes: list[str] = []
    graph = pipeline.load(source, notes)
    before = describe(graph)
    reports = run_passes(
        graph, chosen, verify=verify, stop_after=pipeline.stop_after, on_event=on_event
    )
    model = graph.to_source_opset()
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    after = describe(graph) | {"opset": opset, "ir_version": model.ir_version}
    return Optimized(model, before, after, reports, notes, graph.external_data)


def check_names(names: Sequence[str], passes: Sequence[AnyPass]) -> None:
    """Raises UsageError for a name that no pass has: of the table, or of `passes`."""
    known = {*PASSES, *(each.name for each in passes)}
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no pass '{name}'", hint=f"there is: {', '.join(sorted(known))}"
            )


def load_pass(text: str) -> AnyPass:
    """The pass written as `FILE.py:NAME`: a class of passes with its default options, or a pass.

    The file is run. Raises UsageError where there is no such pass.
    """
    path, colon, name = text.rpartition(":")
    if not colon or not re.fullmatch(r"\w+", name):
        raise UsageError(f"cannot read '{text}'", where="--pass", hint="write FILE.py:NAME")
    spec = importlib.util.spec_from_file_location(f"edgec_user_{Path(path).stem}", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise UsageError("there is no such Python file", where=path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        found = getattr(module, name)
        return _checked(found() if isinstance(found, type) else found)
    except AttributeError as error:
        raise UsageError(str(error), where=path) from error
    except UsageError as error:
        raise UsageError(error.what, where=path, hint=error.hint) from error
    except Exception as error:
        raise UsageError(f"cannot be run: {error!r}", where=path) from error


def _checked(item: object) -> AnyPass:
    if not isinstance(item, Rewrite | Pass):
        raise UsageError(
            f"{item!r} is no pass", hint="a pass is a Rewrite or a Pass of edgec.rewrite"
        )
    wanted = ("name", "numerics", *(("roots",) if isinstance(item, Rewrite) else ()))
    missing = [attribute for attribute in wanted if not hasattr(item, attribute)]
    if missing:
        raise UsageError(f"the pass {type(item).__name__} has no `{missing[0]}`")
    return item
