"""From a model to an artifact: the whole way on one page.

    load -> optimise -> lower -> plan -> build kernels -> link -> verify -> write

Everything is a function of the model, the options, the target data and edgec's version: the same
input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx
import onnx.printer

from edgec import sandbox, targets
from edgec.cache import Cache, key_of, tool_digest
from edgec.emit.archive import write_archive, write_file
from edgec.emit.artifact import Source, Variant, linkable, manifest, members
from edgec.emit.cuda_nvrtc import TF32_SINCE, check_gpu, has_gpu_part, has_tf32
from edgec.emit.forms import (
    FORMS_OF_GRAPH,
    FORMS_OF_MODULE,
    check_kinds,
    of_graph,
    of_module,
    write_forms,
)
from edgec.errors import ArtifactError, ModelError, VerifyError
from edgec.external import all_tensors
from edgec.gpuproof import prove_on_gpu
from edgec.graph import Graph, load
from edgec.options import (
    Options,
    check_options,
    chosen_passes,
    combinations,
    facts_of,
    winograd_sizes,
)
from edgec.passes import NEWER_OPSET_LEVEL, TO_INTEGERS
from edgec.plan import Plan, plan
from edgec.proof import LEVELS as PROOFS
from edgec.proof import (
    means_of_proof,
    means_on_processor,
    prove,
    start_golden,
    twin_of,
    weaker,
)
from edgec.qdq import described, has_integers, integer_share, is_quantized
from edgec.qdq.differences import Difference, differences, summary
from edgec.reference import read_model
from edgec.rewrite import Event, PassReport, optimize
from edgec.runtime.load import read_manifest
from edgec.shelf import Shelf
from edgec.states import check_states, suggest_states
from edgec.targets import Target
from edgec.tune.lookup import Chooser, Lookup
from edgec.variant import OnEvent, Workshop

if TYPE_CHECKING:
    from edgec.lower.extract import Lowered

ModelSource: TypeAlias = str | os.PathLike[str] | onnx.ModelProto


@dataclass(frozen=True)
class Result:
    """What was compiled: the artifact's path, its manifest, and seconds by stage.

    `passes` is empty, and `cached` true, where the artifact was found in the cache. Otherwise
    `lowered` has what each variant was built from, by its id.
    """

    path: Path
    manifest: dict[str, Any]
    seconds: dict[str, float]
    passes: list[PassReport]
    cached: bool
    lowered: Mapping[str, tuple[Lowered, Plan]] = field(default_factory=dict)


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
    options = options or Options()
    check_options(options, print_after)
    compilation = Compilation(
        source, options, cache or Cache.default(), on_event, print_after, save_temps
    )
    return compilation.to(Path(output), reuse)


def emit_forms(
    source: ModelSource,
    kinds: list[str],
    output: Path | None,
    options: Options,
    *,
    print_after: frozenset[str] = frozenset(),
    on_event: OnEvent = lambda event: None,
) -> list[Path]:
    """Write intermediate forms of `source` instead of an artifact; see `edgec.emit.forms`."""
    check_kinds(kinds)
    check_options(options, print_after)
    compilation = Compilation(source, options, Cache.default(), on_event, print_after)
    return compilation.emit(kinds, output)


@dataclass
class Compilation:
    """One run through the stages.

    `meanings` has the model that each variant is compared with, by its id: the user's, or where
    quantized patterns were made integer operators, the graph of these.
    """

    source: ModelSource
    options: Options
    cache: Cache
    on_event: OnEvent
    print_after: frozenset[str] = frozenset()
    save_temps: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    passes: list[PassReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lowered: dict[str, tuple[Lowered, Plan]] = field(default_factory=dict)
    meanings: dict[str, ModelSource] = field(default_factory=dict)

    def to(self, output: Path, reuse: bool) -> Result:
        check_output(output)
        chosen = targets.by_preference(list(map(self.resolve, self.options.targets)))
        with self.stage("read"):
            digest = source_digest(self.source)
            name = self.options.name or model_name(self.source)
            means = [means_of_proof(target) for target in chosen]
            key = key_of(tool_digest(), digest, name, chosen, means, facts_of(self.options))
            options = self.options
            bundled = options.bundled and "host" in options.targets
            chooser = Chooser(Lookup.of(options.records, bundled, options.threads))
            shelf = Shelf(self.cache, key, chooser)
            stored = shelf.find() if reuse else None
        for target, reached in zip(chosen, means, strict=True):
            self.require(target, reached)
            if self.options.tf32 and not has_tf32(target):
                self.note(
                    f"{target.name}: no TF32, which takes a GPU since Ampere, sm_{TF32_SINCE}"
                )
            if target.gpu_arch and not has_gpu_part(target):
                self.note(f"{target.name}: its CPU only: no compiler for its GPU's driver is known")
        if stored is not None:
            data, notes = stored
            for note in notes:
                self.note(note)
            write_file(output, [data])
        else:
            try:
                self.build(name, chosen, digest, output, chooser)
            except OSError as error:
                raise ArtifactError(
                    f"cannot be built: {error.strerror or error}",
                    where=str(output),
                    hint=f"temporary files go to {tempfile.gettempdir()}; "
                    "the environment variable TMPDIR names another folder",
                ) from error
            shelf.keep(output.read_bytes(), self.notes)
        facts = read_manifest(output)
        return Result(output, facts, self.seconds, self.passes, stored is not None, self.lowered)

    def build(
        self, name: str, chosen: Sequence[Target], digest: str, output: Path, chooser: Chooser
    ) -> None:
        """Every variant, proved, into one artifact."""
        if not self.options.trusted:
            sandbox.start()
        from edgec.lower.build import Builders
        from edgec.lower.processor import check_processor

        for target in chosen:
            check_processor(target)
            check_gpu(target)
        with Builders(self.options.jobs or available_cpus()) as builders:
            graphs = [(dims, self.load(dims)) for dims in combinations(self.options.dims)]
            source = Source(digest, graphs[0][1].source_opset)
            tuned = filtered = 0
            for winograd, by in itertools.product(winograd_sizes(self.options), (chooser, None)):
                if by is None and not tuned:
                    continue
                workshop = Workshop(
                    builders, self.cache, self.options, self.stage, self.on_event, by
                )
                built = [
                    pair
                    for dims, graph in graphs
                    for pair in self.variants(workshop, graph, name, chosen, dims, winograd)
                ]
                filtered = sum(_by_winograd(variant) for variant, _ in built)
                tuned = sum(len(variant.tuned) for variant, _ in built)
                try:
                    proved = self.prove(built, name, source, output)
                    break
                except VerifyError as error:
                    if not filtered and not tuned:
                        raise
                    shutil.rmtree(evidence_of(output), ignore_errors=True)
                    to_blame = "tuning records" if tuned else f"Winograd tiles of {winograd}"
                    self.note(f"{to_blame} are too inaccurate: {error.what}")
        if filtered:
            self.note(f"{filtered} convolutions by Winograd tiles of at most {winograd}")
        variants = [variant for variant, _ in built]
        write_archive(output, manifest(name, source, variants, proved), members(name, variants))
        if self.save_temps is not None:
            self.keep(name, graphs[-1][1], variants, winograd)

    def prove(
        self,
        built: Sequence[tuple[Variant, Variant | None]],
        name: str,
        source: Source,
        output: Path,
    ) -> dict[str, str]:
        """How far each variant was proved, by its id; VerifyError if one is wrong."""
        every = [each for pair in built for each in pair if each is not None]
        proved = {variant.id: "none" for variant in every}
        with tempfile.TemporaryDirectory(prefix="edgec-") as folder, self.stage("verify"):
            draft = Path(folder) / "draft.edgec"
            write_archive(draft, manifest(name, source, every, proved), members(name, every))
            for variant, _ in built:
                proved[variant.id] = self.proof(draft, variant, output)
        return proved

    def keep(self, name: str, graph: Graph, variants: Sequence[Variant], winograd: int) -> None:
        """Every intermediate form, a folder per variant, into `save_temps`."""
        for variant in variants:
            forms = {
                kind: of_graph(kind, graph, variant.target, winograd) for kind in FORMS_OF_GRAPH
            }
            forms |= {
                kind: of_module(kind, variant.linkable, variant.target, self.cache)
                for kind in FORMS_OF_MODULE
            }
            write_forms(forms, name, Path(str(self.save_temps)) / variant.id)

    def proof(self, draft: Path, variant: Variant, output: Path) -> str:
        """How far `variant` of the artifact `draft` was proved; VerifyError if it is wrong."""
        evidence, meaning = evidence_of(output), self.meanings[variant.id]
        reached, warnings = prove(draft, variant, meaning, self.cache, evidence)
        if variant.gpu is not None:
            on_gpu, more = prove_on_gpu(variant, variant.gpu, meaning, self.cache, evidence)
            reached, warnings = weaker(reached, on_gpu), [*warnings, *more]
        for warning in warnings:
            self.on_event({"event": "warning", "text": warning})
        return reached

    def resolve(self, name: str) -> Target:
        """The target called `name`; with an NDK, on Android; with the user's CUDA toolkit."""
        target = targets.resolve(name)
        if target.gpu_arch and self.options.cuda_path:
            target = replace(target, cuda_path=self.options.cuda_path)
        return target if self.options.ndk is None else targets.for_android(target)

    def require(self, target: Target, reached: str) -> None:
        """Raises VerifyError where a proof by the means `reached` is less than was asked for."""
        if PROOFS.index(reached) < PROOFS.index(self.options.require):
            raise VerifyError(
                f"a module for '{target.name}' can be proved by '{reached}' only on this machine",
                hint=f"--require {self.options.require} asks for more; "
                f"`edgec doctor --target {target.name}` says what is missing",
            )

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
            self.note(note)
        if self.options.level >= NEWER_OPSET_LEVEL:
            graph.opset_limit = graph.opset
        with self.stage("optimise"):
            self.passes = optimize(
                graph,
                chosen_passes(self.options),
                stop_after=self.options.stop_after,
                on_event=self.show,
            )
            if self.options.level and self.options.stop_after is None and is_quantized(graph):
                self.passes += optimize(graph, TO_INTEGERS, on_event=self.show)
                if integer_share(graph):
                    self.note(described(graph))
        return graph

    def note(self, text: str) -> None:
        """Tell the user of a decision, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.on_event({"event": "note", "text": text})

    def show(self, event: Event) -> None:
        """Print the graph after a pass, where that was asked for."""
        if event.kind == "pass" and event.name in self.print_after:
            text = to_text(event.graph.to_onnx())
            self.on_event({"event": "text", "text": f"after {event.name}:\n{text}"})

    def emit(self, kinds: Sequence[str], output: Path | None) -> list[Path]:
        """Write intermediate forms; the first target and sizes stand for all."""
        target = self.resolve(self.options.targets[0])
        forms: dict[str, bytes] = {}
        if set(kinds) & FORMS_OF_GRAPH:
            graph = self.load(next(combinations(self.options.dims)))
            most, *_ = winograd_sizes(self.options)
            forms |= {k: of_graph(k, graph, target, most) for k in kinds if k in FORMS_OF_GRAPH}
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
        winograd: int,
    ) -> Iterator[tuple[Variant, Variant | None]]:
        """`graph` for each target, with its twin for this host where only that can be run.

        `winograd` is the size of its tiles, as `lower_graph` takes it.
        """
        from edgec.lower.lowering import lower_graph, signature

        inputs, outputs = signature(graph)
        check_states(self.options.states, inputs, outputs)
        if not self.options.states:
            for pair in suggest_states(inputs, outputs):
                self.note(f"'{pair[0]}' looks like the next '{pair[1]}': --state {'='.join(pair)}")
        meaning = graph.to_onnx() if has_integers(graph) else self.source
        golden = start_golden(
            meaning,
            inputs,
            outputs,
            self.options.states,
            tf32=any(map(has_tf32, chosen)) and self.options.tf32,
        )
        found: list[Difference] = []
        if meaning is not self.source:
            with self.stage("compare"):
                found = differences(self.source, meaning, inputs)
            if found:
                self.note(summary(found))
        lowerings: dict[tuple[int, str], tuple[Lowered, Plan]] = {}
        for target in chosen:
            form = target.channel_block, target.dots
            if form not in lowerings:
                with self.stage("lower"):
                    states = list(self.options.states)
                    lowered = lower_graph(graph, name, states, target, winograd)
                with self.stage("plan"):
                    lowerings[form] = lowered, plan(lowered.program)
            lowered, planned = lowerings[form]
            variant = workshop.build(lowered, planned, target, dims, golden.result)
            variant = replace(variant, integers=integer_share(graph), differences=found)
            self.lowered[variant.id] = lowered, planned
            self.meanings[variant.id] = meaning
            twin = None
            if means_on_processor(target) == "host-twin":
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


def _by_winograd(variant: Variant) -> int:
    """How many of the variant's steps are convolutions by Winograd's filtering."""
    return sum("winograd" in call.kernel for call in variant.plan.program.calls())


def evidence_of(output: Path) -> Path:
    """The folder for the data of a mismatch of the artifact `output`."""
    return output.with_suffix(".mismatch")


def check_output(path: Path) -> None:
    """Raises ArtifactError, before any work, where an artifact cannot be written to `path`."""
    folder = path.parent
    if path.is_dir():
        problem = "is a folder"
    elif not folder.is_dir():
        problem = f"the folder '{folder}' does not exist"
    elif not os.access(folder, os.W_OK):
        problem = f"the folder '{folder}' is not writable"
    else:
        return
    raise ArtifactError(f"cannot be written: {problem}", where=str(path))


def to_text(model: onnx.ModelProto) -> str:
    """A model in ONNX's text syntax, its large constants shortened to their first values."""

    def shorten(match: re.Match[str]) -> str:
        values = match[1].split(",")
        return match[0] if len(values) <= 8 else f"{{{','.join(values[:4])},...}}"

    return re.sub(r"\{([-+.\w]+(?:,[-+.\w]+)*)\}", shorten, onnx.printer.to_text(model))


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


def source_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files a model consists of: itself, then those of its external data."""
    model = onnx.load(path, load_external_data=False)
    places = {
        entry.value
        for tensor in all_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [Path(path), *(Path(path).parent / place for place in sorted(places))]


def model_name(source: ModelSource) -> str:
    """What the model is called in C: the file's name, or the graph's."""
    if isinstance(source, onnx.ModelProto):
        return source.graph.name or "model"
    return Path(source).stem


def available_cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
