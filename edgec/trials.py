"""What each engine is best at: the form of a model and the number of threads.

A ratio against a peer given a worse file or thread count is void. So every peer is tried on the
model as it is, on the same at opset 17 with initializers taken out of the graph inputs, and on
edgec's own optimised ONNX, with one and with two threads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from edgec import graph, protocol
from edgec.cache import Cache, key_of
from edgec.compiler import source_digest
from edgec.data import Sample
from edgec.errors import EdgecError
from edgec.passes import LEVELS
from edgec.peaks import processor_name
from edgec.peers import PEERS, EngineError, EngineProcess
from edgec.rewrite import optimize

LEVEL = 2
"""At which the optimised file is made that every peer may have."""
TRIAL_S = 0.3
"""Trials take bursts until this time is spent, two at least and five at most."""
HOPELESS = 3.0
"""A setting so many times slower than the best so far is not tried any longer."""

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Setting:
    """What one engine is started with. `label` names the file in reports."""

    engine: str
    label: str
    path: Path
    threads: int
    options: Mapping[str, Any]


@dataclass
class Started:
    """A running engine, with what its starting cost in seconds."""

    process: EngineProcess
    import_s: float
    load_s: float
    outputs: Sample


def peer_files(
    model: Path,
    optimized: str | os.PathLike[str] | None,
    sample: Sample,
    folder: Path,
    levels: Sequence[int] = (LEVEL,),
) -> tuple[dict[str, Path], dict[str, str]]:
    """What peers may be given, by label, and why the rest cannot be made.

    `optimized` is edgec's optimised ONNX, made at each of `levels` where it is None.
    """
    files, lacking = {"as given": model}, {}
    shapes = {name: array.shape for name, array in sample.items()}
    opset: int | None = 17
    try:
        graph.load(model, shapes=shapes).save(folder / "opset17.onnx", opset=opset)
        files["opset 17"] = folder / "opset17.onnx"
    except EdgecError as error:
        lacking["opset 17"] = error.what
        opset = None
    if optimized is not None:
        return files | {"optimised": Path(optimized)}, lacking
    for level in levels:
        label = "optimised" if level == LEVEL else f"optimised -O{level}"
        try:
            loaded = graph.load(model, shapes=shapes)
            optimize(loaded, LEVELS[level])
            loaded.save(folder / f"{label}.onnx", opset=opset)
            files[label] = folder / f"{label}.onnx"
        except EdgecError as error:
            lacking[label] = error.what
    return files, lacking


@dataclass
class Trials:
    """Short runs that find every engine's best setting, and `tried`, what was found on the way."""

    sample: Sample
    folder: Path
    options: Mapping[str, Any]
    threads: Sequence[int]
    on_event: OnEvent
    tried: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, tuple[float, Setting]] = field(default_factory=dict)
    """By engine, the setting with the lowest median, in seconds, of the best of a few bursts."""

    def run(self, engine: str, files: Mapping[str, Path]) -> None:
        """Try the files with every number of threads. `EngineError` where nothing works."""
        failure: EngineError | None = None
        for label, path in files.items():
            try:
                own = self._compiled(engine, label, path)
            except EngineError as error:
                failure = error
                self.note(engine, label, error=error.what)
                continue
            for threads in self.threads:
                setting = Setting(engine, label, own, threads, self.options)
                try:
                    seconds = self._median(setting)
                except EngineError as error:
                    failure = error
                    self.note(engine, label, threads=threads, error=error.what)
                    continue
                self.note(engine, label, threads=threads, median_s=seconds)
                if engine not in self.best or seconds < self.best[engine][0]:
                    self.best[engine] = (seconds, setting)
        if engine not in self.best and failure is not None:
            raise failure

    def _compiled(self, engine: str, label: str, path: Path) -> Path:
        """What the engine loads: the file, or what its own compiler makes of it, once."""
        peer = PEERS.get(engine)
        if peer is None or peer.prepare is None:
            return path
        own = self.folder / f"{engine} {label}"
        own.mkdir()
        cache = Cache.default()
        parts = (engine, peer.version(), peer.options, processor_name(), source_digest(path))
        found = cache.get("peer", key_of(*parts))
        if found is None:
            made = peer.prepare(path, own)
            cache.put("peer", key_of(*parts), made.read_bytes())
            return made
        (own / "compiled").write_bytes(found)
        return own / "compiled"

    def _median(self, setting: Setting) -> float:
        """Seconds of the best of a few bursts; of one, where that is far from the best so far."""
        known = self.best.get(setting.engine, (math.inf,))[0]
        with EngineProcess(setting.engine) as process:
            start(process, setting, self.sample)
            bursts = [protocol.burst(process)]
            hopeless = median(bursts[0]) > HOPELESS * known
            while not hopeless and (
                len(bursts) < 2 or (len(bursts) < 5 and sum(map(sum, bursts)) < TRIAL_S)
            ):
                bursts.append(protocol.burst(process))
        return min(median(times) for times in bursts)

    def note(self, engine: str, label: str, **facts: Any) -> None:
        """Remember a trial and say so."""
        self.tried.append({"engine": engine, "file": label, **facts})
        self.on_event({"event": "trial", **self.tried[-1]})


def start(process: EngineProcess, setting: Setting, sample: Sample) -> Started:
    facts = process.load(setting.path, setting.threads, **setting.options)
    inputs = {name: sample[name] for name in facts["inputs"] if name in sample}
    outputs, first_run_s = process.timed_run(inputs)
    process.bind(inputs)
    return Started(process, facts["import_s"], facts["create_s"] + first_run_s, outputs)
