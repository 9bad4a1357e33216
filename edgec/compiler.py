"""From a model to an artifact: the whole way on one page.

    load -> optimise -> lower -> plan -> build kernels -> link -> verify -> write

Everything is a function of the model, the options, the target data and edgec's version: the same
input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import onnx.printer

from edgec import targets
from edgec.cache import Cache, key_of, tool_digest
from edgec.emit.archive import write_archive, write_file
from edgec.emit.artifact import Source, Variant, linkable, manifest, members
from edgec.emit.forms import (
    FORMS_OF_GRAPH,
    FORMS_OF_MODULE,
    check_kinds,
    of_graph,
    of_module,
    write_forms,
)
from edgec.errors import ModelError, UsageError, VerifyError
from edgec.external import all_tensors
from edgec.graph import Graph, load
from edgec.passes import LEVELS, PASSES
from edgec.plan import plan
from edgec.proof import LEVELS as PROOFS
from edgec.proof import means_of_proof, prove, start_golden, twin_of
from edgec.rewrite import AnyPass, Event, PassReport, optimize, parse
from edgec.runtime.load import read_manifest
from edgec.targets import Target
from edgec.variant import OnEvent, Workshop
from edgec.verify import read_model

ModelSource: TypeAlias = str | os.PathLike[str] | onnx.ModelProto


@dataclass(frozen=True)
class Options:
    """How to compile.

    Attributes:
        targets: names of targets, one variant each.
        level: optimisation level, 0 to 3.
        shapes: whole shapes by input name.
        dims: sizes by symbolic dimension; several sizes make several variants.
        states: (output, input) names kept in the instance from one run to the next.
        passes: passes to run instead of the level's, in the syntax of `edgec.rewrite.parse`.
        disable: names of passes of the level to leave out.
        stop_after: end optimisation after so many rewrites.
        name: name of the model in C; by default the file's.
        cc: a C compiler to link with instead of the ziglang package's.
        trusted: run ONNX's native code in this process, without the helper that catches crashes.
        require: the least proof that will do: "none", "host-twin", "emulated" or "device".
        jobs: processes that build kernels; by default the processors available.
    """

    targets: tuple[str, ...] = ("host",)
    level: int = 2
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    states: tuple[tuple[str, str], ...] = ()
    passes: str | None = None
    disable: tuple[str, ...] = ()
    stop_after: int | None = None
    name: str | None = None
    cc: str | None = None
    trusted: bool = False
    require: str = "none"
    jobs: int | None = None


_NOT_IN_THE_RESULT = frozenset(["targets", "trusted", "require", "jobs", "name"])
"""Options that change nothing in the artifact beyond what the cache's key has already."""


@dataclass(frozen=True)
class Result:
    """What was compiled: the artifact's path, its manifest, and seconds by stage.

    `passes` is empty, and `cached` true, where the artifact was found in the cache.
    """

    path: Path
    manifest: dict[str, Any]
    seconds: dict[str, float]
    passes: list[PassReport]
    cached: bool


def compile_model(
    source: ModelSource,
    output: str | os.PathLike[str],
    options: Options | None = None,
    *,
    cache: Cache | None = None,
    reuse: bool = True,
    print_after: frozenset[str] = frozenset(),
    save_temps: Path | None = None,
    on_event: OnEvent = lambda event: None,
) -> Result:
    """Compile `source` and write the artifact to `output`, whole or not at all.

    With `reuse`, an artifact compiled before from the same input is taken from `cache`. The graph
    is shown after each run of the passes `print_after`; the folder `save_temps` receives every
    intermediate form.

    Raises:
        EdgecError: each stage its own kind; see `edgec.errors`.
    """
    compilation = Compilation(
        source, options or Options(), cache or Cache.default(), on_event, print_after, save_temps
    )
    return compilation.to(Path(output), reuse)


def emit_forms(
    source: ModelSource,
    kinds: list[str],
    output: Path | None,
    options: Options,
    on_event: OnEvent = lambda event: None,
) -> list[Path]:
    """Write intermediate forms of `source` instead of an artifact; see `edgec.emit.forms`."""
    check_kinds(kinds)
    return Compilation(source, options, Cache.default(), on_event).emit(kinds, output)


@dataclass
class Compilation:
    """One run through the stages."""

    source: ModelSource
    options: Options
    cache: Cache
    on_event: OnEvent
    print_after: frozenset[str] = frozenset()
    save_temps: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    passes: list[PassReport] = field(default_factory=list)

    def to(self, output: Path, reuse: bool) -> Result:
        chosen = [targets.resolve(name) for name in self.options.targets]
        with self.stage("read"):
            digest = source_digest(self.source)
            name = self.options.name or model_name(self.source)
            key = key_of(tool_digest(), digest, name, chosen, _facts(self.options))
            stored = self.cache.get("artifact", key) if reuse else None
        if stored is not None:
            write_file(output, [stored])
        else:
            self.build(name, chosen, digest, output)
            self.cache.put("artifact", key, output.read_bytes())
        facts = read_manifest(output)
        return Result(output, facts, self.seconds, self.passes, stored is not None)

    def build(self, name: str, chosen: Sequence[Target], digest: str, output: Path) -> None:
        """Every variant, proved, into one artifact."""
        from edgec.lower.build import Builders

        variants: list[Variant] = []
        twins: list[Variant] = []
        with Builders(self.options.jobs or available_cpus()) as builders:
            workshop = Workshop(builders, self.cache, self.options.cc, self.stage, self.on_event)
            for dims in _combinations(self.options.dims):
                graph = self.load(dims)
                for variant, twin in self.variants(workshop, graph, name, chosen, dims):
                    variants.append(variant)
                    twins += [twin] if twin else []
        source = Source(digest, graph.source_opset)
        proved = {variant.id: "none" for variant in (*variants, *twins)}
        with tempfile.TemporaryDirectory(prefix="edgec-") as folder, self.stage("verify"):
            draft = Path(folder) / "draft.edgec"
            every = [*variants, *twins]
            write_archive(draft, manifest(name, source, every, proved), members(name, every))
            for variant in variants:
                proved[variant.id] = self.proof(draft, variant, output)
        facts = manifest(name, source, variants, proved)
        write_archive(output, facts, members(name, variants))
        if self.save_temps is not None:
            self.keep(name, graph, variants)

    def keep(self, name: str, graph: Graph, variants: Sequence[Variant]) -> None:
        """Every intermediate form, a folder per variant, into `save_temps`."""
        for variant in variants:
            forms = {kind: of_graph(kind, graph, variant.target) for kind in FORMS_OF_GRAPH}
            forms |= {
                kind: of_module(kind, variant.linkable, variant.target, self.cache)
                for kind in FORMS_OF_MODULE
            }
            write_forms(forms, name, Path(str(self.save_temps)) / variant.id)

    def proof(self, draft: Path, variant: Variant, output: Path) -> str:
        """How far `variant` of the artifact `draft` was proved; VerifyError if it is wrong."""
        evidence = output.with_suffix(".mismatch")
        reached, warnings = prove(draft, variant, self.source, self.cache, evidence)
        for warning in warnings:
            self.on_event({"event": "warning", "text": warning})
        if PROOFS.index(reached) < PROOFS.index(self.options.require):
            raise VerifyError(
                f"variant '{variant.id}' is proved by '{reached}' only",
                hint=f"--require {self.options.require} asks for more; "
                f"`edgec doctor --target {variant.target.name}` says what is missing",
            )
        return reached

    def load(self, dims: Mapping[str, int]) -> Graph:
        """The model, checked, bound to `dims` and optimised."""
        notes: list[str] = []
        with self.stage("load"):
            graph = load(
                self.source,
                shapes=self.options.shapes,
                dims=dims,
                trusted=self.options.trusted,
                notes=notes,
            )
        for note in notes:
            self.on_event({"event": "note", "text": note})
        with self.stage("optimise"):
            self.passes = optimize(
                graph,
                chosen_passes(self.options),
                stop_after=self.options.stop_after,
                on_event=self.show,
            )
        return graph

    def show(self, event: Event) -> None:
        """Print the graph after a pass, where that was asked for."""
        if event.kind == "pass" and event.name in self.print_after:
            text = onnx.printer.to_text(event.graph.to_onnx())
            self.on_event({"event": "text", "text": f"after {event.name}:\n{text}"})

    def emit(self, kinds: Sequence[str], output: Path | None) -> list[Path]:
        """Write intermediate forms; the first target and sizes stand for all."""
        target = targets.resolve(self.options.targets[0])
        forms: dict[str, bytes] = {}
        if set(kinds) & FORMS_OF_GRAPH:
            graph = self.load(next(_combinations(self.options.dims)))
            forms |= {k: of_graph(k, graph, target) for k in kinds if k in FORMS_OF_GRAPH}
        if set(kinds) & FORMS_OF_MODULE:
            with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
                artifact = self.to(Path(folder) / "model.edgec", reuse=True).path
                model, _ = linkable(artifact)
            forms |= {
                k: of_module(k, model, target, self.cache) for k in kinds if k in FORMS_OF_MODULE
            }
        name = self.options.name or model_name(self.source)
        return write_forms({kind: forms[kind] for kind in kinds}, name, output)

    def variants(
        self,
        workshop: Workshop,
        graph: Graph,
        name: str,
        chosen: Sequence[Target],
        dims: Mapping[str, int],
    ) -> Iterator[tuple[Variant, Variant | None]]:
        """`graph` for each target, with its twin for this host where only that can be run."""
        from edgec.lower.lowering import lower_graph, signature

        inputs, outputs = signature(graph)
        golden = start_golden(self.source, inputs, outputs, self.options.states)
        with self.stage("lower"):
            lowered = lower_graph(graph, name, list(self.options.states))
        with self.stage("plan"):
            planned = plan(lowered.program)
        for target in chosen:
            variant = workshop.build(lowered, planned, target, dims, golden.result)
            twin = None
            if means_of_proof(target) == "host-twin":
                twin = workshop.build(lowered, planned, targets.host(), dims, golden.result)
                twin = replace(twin, id=twin_of(variant.id))
            yield variant, twin

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and announce it."""
        self.on_event({"event": "stage", "stage": name, "state": "start"})
        started = time.perf_counter()
        yield
        spent = time.perf_counter() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self.on_event({"event": "stage", "stage": name, "state": "done", "seconds": spent})


def chosen_passes(options: Options) -> tuple[AnyPass, ...]:
    """The passes that `options` ask for, in order.

    Raises:
        UsageError: an unknown pass, option or level.
    """
    for name in options.disable:
        if name not in PASSES:
            raise UsageError(f"there is no pass '{name}'", hint=f"there is: {', '.join(PASSES)}")
    if options.level not in LEVELS:
        raise UsageError(f"there is no level {options.level}", hint="levels are 0 to 3")
    passes = LEVELS[options.level] if options.passes is None else parse(options.passes, PASSES)
    return tuple(each for each in passes if each.name not in options.disable)


def source_digest(source: ModelSource) -> str:
    """SHA-256 of a model's bytes, files of external data included.

    Raises:
        ModelError: the file cannot be read.
    """
    if isinstance(source, onnx.ModelProto):
        return hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
    path = Path(source)
    digest = hashlib.sha256()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    digest.update(data)
    if b"location" in data:
        for tensor in all_tensors(read_model(path)):
            digest.update(tensor.raw_data)
    return digest.hexdigest()


def model_name(source: ModelSource) -> str:
    """What the model is called in C: the file's name, or the graph's."""
    if isinstance(source, onnx.ModelProto):
        return source.graph.name or "model"
    return Path(source).stem


def available_cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _facts(options: Options) -> list[object]:
    """What of `options` the artifact depends on, besides targets and name."""
    return [
        sorted(value.items()) if isinstance(value, Mapping) else value
        for value in (
            getattr(options, item.name)
            for item in fields(options)
            if item.name not in _NOT_IN_THE_RESULT
        )
    ]


def _combinations(dims: Mapping[str, tuple[int, ...]]) -> Iterator[dict[str, int]]:
    for sizes in itertools.product(*dims.values()):
        yield dict(zip(dims, sizes, strict=True))
