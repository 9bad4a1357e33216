"""Benchmarks of a compiled model beside its peers, each at its best (`edgec.trials`), measured by
`edgec.protocol`."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import edgec
from edgec import graph, protocol
from edgec.benchreport import BenchReport, Row
from edgec.cache import Cache
from edgec.compare import compare
from edgec.compiler import source_digest
from edgec.data import Sample, index_limits, open_data
from edgec.emit.toolchain import Toolchain
from edgec.errors import UsageError
from edgec.floors import find_floors
from edgec.peaks import processor_name
from edgec.peers import PEERS, EngineError, EngineProcess
from edgec.program import Tensor
from edgec.reference import read_model
from edgec.runtime.load import read_manifest
from edgec.targets import host
from edgec.trials import LEVEL, OnEvent, Setting, Started, Trials, peer_files, start
from edgec.verify import static_inputs

THREADS = (1, 2)
STARTS = 3
NATIVE = ("onnxruntime",)
"""Peers that `burst.c` can call."""
BURST = Path(__file__).with_name("burst.c")


def bench(
    artifact: str | os.PathLike[str] | None,
    model: str | os.PathLike[str] | None = None,
    *,
    against: Sequence[str] | None = None,
    optimized: str | os.PathLike[str] | None = None,
    levels: Sequence[int] = (LEVEL,),
    threads: int | None = None,
    spin_us: int | None = None,
    calls: int = protocol.CALLS,
    inputs: Sample | None = None,
    native: bool = False,
    on_event: OnEvent = lambda event: None,
) -> BenchReport:
    """Measure `artifact`, a .edgec file of `model`, and the engines `against`.

    Without a model, the one it was compiled from is looked for beside the artifact (NAME.onnx for
    NAME.edgec). Without an artifact only the peers are measured, and the fastest is the first row.
    `against` defaults to every known peer; those not installed are reported as absent. `optimized`
    is edgec's optimised ONNX for the peers to try, made at each of `levels` where it is not given.
    `threads` fixes the number that is otherwise chosen among 1 and 2. edgec's idle threads spin for
    `spin_us` microseconds (None: 100). At least `calls` calls of each engine are counted. `inputs`
    is the sample to run, random where it is not given. `native` calls edgec and ONNX Runtime from
    C; no other engine can be then.

    `on_event` hears of every trial and round: dicts with "event" and its facts.

    Raises `UsageError` for an unknown engine and where nothing is left to measure, `EngineError`
    where edgec itself fails, `ModelError` and `ArtifactError` for unusable files.
    """
    peers = _known(NATIVE if native and against is None else against)
    if native and not set(peers) <= set(NATIVE):
        raise UsageError(
            "only these engines are called from C: edgec, " + ", ".join(NATIVE), where="--native"
        )
    absent = {name: PEERS[name].pip for name in peers if not PEERS[name].installed}
    available = [name for name in peers if name not in absent]
    if not available and (against or artifact is None):
        raise UsageError(
            "none of these engines is installed: " + ", ".join(absent),
            hint="; ".join(absent.values()),
        )
    model = Path(model) if model is not None else _model_beside(artifact)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgec-")))
        sample = _sample(artifact, model, inputs)
        files, lacking = peer_files(model, optimized, sample, folder, levels)
        counts = (threads,) if threads is not None else _thread_counts()
        options = _options(model, sample) | {"spin_us": spin_us}
        if native:
            options["native"] = _burst_library(folder)
        trials = Trials(sample, folder, options, counts, on_event)
        for label, why in lacking.items():
            trials.note("edgec", label, error=why)
        if artifact is not None:
            trials.run("edgec", {"artifact": Path(artifact)})
        failed: dict[str, str] = {}
        for peer in available:
            try:
                trials.run(peer, files)
            except EngineError as error:
                failed[peer] = error.what
        if not trials.best:
            reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
            raise UsageError(f"no engine can run the model: {reasons}")
        settings = [setting for _, setting in trials.best.values()]
        if artifact is None:
            settings.sort(key=lambda setting: trials.best[setting.engine][0])
        rivals = [s for s in settings if s.engine != "edgec"] or settings
        twin_of = min(rivals, key=lambda setting: trials.best[setting.engine][0])

        started = [_cold_start(setting, sample, stack) for setting in settings]
        twin = stack.enter_context(EngineProcess(twin_of.engine))
        start(twin, twin_of, sample)
        *times, twin_times = protocol.alternate(
            [*(engine.process for engine in started), twin],
            calls,
            lambda done, rounds: on_event({"event": "round", "done": done, "rounds": rounds}),
        )
        rows = [
            _row(setting, engine, taken)
            for setting, engine, taken in zip(settings, started, times, strict=True)
        ]
    return BenchReport(
        model=model.stem,
        machine=machine(),
        rows=rows,
        twin=twin_times,
        twin_of=twin_of.engine,
        absent=absent,
        failed=failed,
        tried=trials.tried,
        native=native,
        warnings=[f"no file {label!r} to try: {why}" for label, why in lacking.items()]
        + _disagreements(settings, started, find_floors(read_model(model))),
    )


def _burst_library(folder: Path) -> str:
    """`burst.c` as a library in `folder`. `TargetError` or `LoweringError` where it cannot be."""
    toolchain = Toolchain.of(host(), Cache.default().path)
    code = toolchain.compile(BURST, includes=())
    exports = [f"burst_{name}" for name in ("edgec", *NATIVE)]
    path = folder / "burst.so"
    path.write_bytes(toolchain.shared_library([code], exports=exports, soname=path.name))
    return str(path)


def machine() -> dict[str, str]:
    """What a time belongs to: processor, usable cores, system."""
    cores = _cores()
    return {
        "processor": processor_name(),
        "cores": f"{cores} core{'s' if cores > 1 else ''}",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _known(against: Sequence[str] | None) -> list[str]:
    for name in against or ():
        if name not in PEERS:
            raise UsageError(
                f"unknown engine {name!r}", where="--against", hint="known: " + ", ".join(PEERS)
            )
    return list(dict.fromkeys(against)) if against is not None else list(PEERS)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _thread_counts() -> tuple[int, ...]:
    return tuple(count for count in THREADS if count <= max(_cores(), 1))


def _model_beside(artifact: str | os.PathLike[str] | None) -> Path:
    """NAME.onnx beside NAME.edgec; `UsageError` unless that is what it was compiled from."""
    if artifact is not None:
        model = Path(artifact).with_suffix(".onnx")
        if model.exists() and source_digest(model) == read_manifest(artifact)["source"]["sha256"]:
            return model
    raise UsageError(
        "the other engines need the model",
        where=str(artifact or ""),
        hint="give the file it was compiled from: --model MODEL.onnx",
    )


def _sample(
    artifact: str | os.PathLike[str] | None,
    model: str | os.PathLike[str],
    inputs: Sample | None,
) -> Sample:
    """One sample for all engines: also zeros for state that an artifact keeps to itself."""
    shapes = {name: list(array.shape) for name, array in (inputs or {}).items()}
    states: list[Tensor] = []
    if artifact is not None:
        variant = read_manifest(artifact)["variants"][0]
        shapes |= {tensor["name"]: tensor["shape"] for tensor in variant["inputs"]}
        kept = [state["input"] for state in variant.get("states", ())]
        states = [Tensor(s["name"], s["dtype"], tuple(s["shape"])) for s in kept]
        shapes |= {tensor.name: list(tensor.shape) for tensor in states}
    bound = graph.load(model, shapes=shapes).to_onnx()
    known = {tensor.name for tensor in states} | (inputs or {}).keys()
    rest = [tensor for tensor in static_inputs(bound) if tensor.name not in known]
    random = next(iter(open_data(rest, ["random"], limits=index_limits(bound))))
    zeros = next(iter(open_data(states, ["zeros"])))
    return {**random, **zeros, **(inputs or {})}


def _options(model: Path, sample: Sample) -> dict[str, Any]:
    """What engines may have to be told of the model: sizes of symbolic dims, shapes, names."""
    proto = read_model(model).graph
    dims: dict[str, int] = {}
    inputs = [value for value in proto.input if value.name in sample]
    for value in inputs:
        sizes = zip(value.type.tensor_type.shape.dim, sample[value.name].shape, strict=False)
        dims |= {dim.dim_param: size for dim, size in sizes if dim.dim_param}
    return {
        "dims": dims,
        "shapes": {name: list(array.shape) for name, array in sample.items()},
        "inputs": [value.name for value in inputs],
        "outputs": [value.name for value in proto.output],
    }


def _cold_start(setting: Setting, sample: Sample, stack: ExitStack) -> Started:
    """A fresh process that stays, stopped, with the median cost of starting over several."""
    before = []
    for _ in range(STARTS - 1):
        with EngineProcess(setting.engine) as process:
            before.append(start(process, setting, sample))
    last = start(stack.enter_context(EngineProcess(setting.engine)), setting, sample)
    last.process.stop()
    last.import_s = median(each.import_s for each in (*before, last))
    last.load_s = median(each.load_s for each in (*before, last))
    return last


def _row(setting: Setting, started: Started, times: protocol.Times) -> Row:
    started.process.resume()
    resident, baseline = started.process.memory()
    started.process.stop()
    peer = PEERS.get(setting.engine)
    return Row(
        engine=setting.engine,
        title=peer.title if peer else "edgec",
        version=peer.version() if peer else edgec.__version__,
        file=setting.label,
        threads=setting.threads,
        times=times,
        import_s=started.import_s,
        load_s=started.load_s,
        resident_bytes=resident,
        engine_bytes=resident - baseline,
        file_bytes=setting.path.stat().st_size,
        disk_bytes=peer.disk_bytes() if peer else 0,
    )


def _disagreements(
    settings: Sequence[Setting], started: Sequence[Started], floors: Mapping[str, float]
) -> list[str]:
    """Outputs that differ between the first engine and another by more than the tolerance."""
    found = []
    base = started[0].outputs
    for setting, other in zip(settings[1:], started[1:], strict=True):
        theirs = {name: other.outputs[name] for name in base.keys() & other.outputs.keys()}
        for report in compare({name: base[name] for name in theirs}, theirs, floors=floors):
            if not report.ok:
                found.append(
                    f"{settings[0].engine} and {setting.engine} differ in "
                    f"output {report.name!r}: {report.problem}"
                )
    return found
