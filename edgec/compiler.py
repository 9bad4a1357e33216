"""From a model to an artifact: the whole way on one page.

    load -> optimise -> lower -> plan -> build kernels -> link -> verify -> write

Everything is a function of the model, the options, the target data and edgec's version: the same
input gives the same bytes.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from edgec import targets
from edgec.cache import Cache, key_of, tool_digest
from edgec.emit import artifact
from edgec.emit.archive import write_archive
from edgec.errors import EdgecError, UsageError
from edgec.targets import Target

OnEvent = Callable[[dict[str, Any]], None]
"""Receives what happens, as it happens: {"event": "stage" | "progress" | "note", ...}."""

ModelSource = str | os.PathLike[str] | onnx.ModelProto


@dataclass(frozen=True)
class Options:
    """How to compile.

    Attributes:
        targets: names of targets, one variant each.
        level: optimisation level, 0 to 3.
        shapes: whole shapes by input name.
        dims: sizes by symbolic dimension; several sizes make several variants.
        states: (output, input) names kept in the instance from one run to the next.
        passes: passes to run instead of the level's, in `edgec.rewrite.parse`'s syntax.
        disable: names of passes of the level to leave out.
        name: name of the model in C; by default the file's.
        jobs: processes that build kernels; by default the processors available.
        cc: a C compiler to link with instead of the ziglang package's.
        require: the least proof that will do: "none", "host-twin", "emulated" or "device".
        trusted: run ONNX's native code in this process, without the helper that catches crashes.
        save_temps: a folder that receives every intermediate form.
    """

    targets: tuple[str, ...] = ("host",)
    level: int = 2
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    states: tuple[tuple[str, str], ...] = ()
    passes: str | None = None
    disable: tuple[str, ...] = ()
    name: str | None = None
    jobs: int | None = None
    cc: str | None = None
    require: str = "none"
    trusted: bool = False
    save_temps: Path | None = None


@dataclass(frozen=True)
class Result:
    """What was compiled: the artifact's path, its manifest, and seconds by stage."""

    path: Path
    manifest: dict[str, Any]
    seconds: dict[str, float]
    cached: bool


def compile_model(
    source: ModelSource,
    output: str | os.PathLike[str],
    options: Options | None = None,
    *,
    on_event: OnEvent | None = None,
    cache: Cache | None = None,
) -> Result:
    """Compile `source` and write the artifact to `output`, whole or not at all.

    Raises:
        EdgecError: each stage its own kind; see `edgec.errors`.
    """
    options = options or Options()
    run = _Run(source, options, cache or Cache.default(), on_event or (lambda event: None))
    return run.to(Path(output))


@dataclass
class _Run:
    """One compilation: what the stages share."""

    source: ModelSource
    options: Options
    cache: Cache
    on_event: OnEvent
    seconds: dict[str, float] = field(default_factory=dict)

    def to(self, output: Path) -> Result:
        chosen = [targets.resolve(name) for name in self.options.targets]
        with self.stage("read"):
            digest = source_digest(self.source)
        name = self.options.name or model_name(self.source)
        key = key_of(tool_digest(), digest, name, chosen, _facts(self.options))
        reusable = self.options.save_temps is None
        stored = self.cache.get("artifact", key) if reusable else None
        if stored is None:
            self._build(name, chosen, digest, output)
            if reusable:
                self.cache.put("artifact", key, output.read_bytes())
        else:
            write_atomically(output, stored)
        facts = read_manifest(output)
        for variant in facts["variants"]:
            self._check_proof(variant)
        return Result(output, facts, self.seconds, stored is not None)

    def _build(self, name: str, chosen: Sequence[Target], digest: str, output: Path) -> None:
        from edgec.lower.build import Builders

        variants: list[Variant] = []
        verified: dict[str, str] = {}
        opset = 0
        with Builders(self.options.jobs or available_cpus()) as builders:
            for dims in _combinations(self.options.dims):
                with self.stage("load"):
                    graph = self._load(dims)
                    opset = graph.source_opset
                with self.stage("optimise"):
                    self._optimise(graph)
                proof = Proof.start(self.source, graph, self.options.states)
                for target in chosen:
                    builder = VariantBuilder(self, name, target, dims, proof, builders)
                    variants.append(builder.build(graph))
        source = Source(digest, opset)
        ...
