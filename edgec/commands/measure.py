"""`edgec run`, `edgec verify`, `edgec bench` and `edgec profile`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.arrays import Array, save_npy
from edgec.bench import bench as measure
from edgec.cache import Cache
from edgec.data import Dataset, open_data
from edgec.display import Display
from edgec.errors import DataError, EdgecError
from edgec.peaks import Peaks
from edgec.peaks import measure as measure_peaks
from edgec.profile import profile as measure_steps
from edgec.profileplot import plot
from edgec.program import Tensor
from edgec.qdq.meaning import meaning_of
from edgec.report import duration, table
from edgec.runtime.load import Module, load
from edgec.targets import from_facts
from edgec.verify import verify as compare

if TYPE_CHECKING:
    from edgec.remote import RemoteModule


def run(args: argparse.Namespace, display: Display) -> int:
    """Run an artifact, show its outputs, and write them where asked."""
    with _loaded(args, args.spin_us) as module:
        if args.selftest:
            module.selftest()
            display.result({"selftest": "passed"}, "self-test passed")
            return 0
        data = _data(module, args, display, count=args.samples)
        results = [module.run(sample) for sample in data]
    outputs = {name: [result[name] for result in results] for name in results[0]}
    if args.output is not None:
        _write(args.output, outputs)
    facts = [_describe(name, values) for name, values in outputs.items()]
    header = ("output", "type", "min", "max", "mean", "first values")
    display.result(
        {"samples": len(results), "outputs": facts}, table(header, [_row(each) for each in facts])
    )
    return 0


def verify(args: argparse.Namespace, display: Display) -> int:
    """Compare an artifact with ONNX Runtime on its model."""
    with _loaded(args) as module:
        variant = next(v for v in module.manifest["variants"] if v["id"] == module.variant)
        states = [
            (
                Tensor(s["input"]["name"], s["input"]["dtype"], tuple(s["input"]["shape"])),
                s["output"],
            )
            for s in variant["states"]
        ]
        signature = [*module.inputs, *(tensor for tensor, _ in states)]
        report = compare(
            module,
            meaning_of(args.against, signature) if variant.get("integers") else args.against,
            given=_data(module, args, display, count=1) if args.input else (),
            specs=module.inputs,
            states=states,
            evidence=args.artifact.with_suffix(".mismatch"),
            seed=args.seed,
            tf32=_in_tf32(variant, getattr(module, "device", "CPU")),
            on_sample=lambda name: display.event(
                {"event": "stage", "stage": f"verify {name}", "state": "start"}
            ),
        )
    for warning in report.warnings:
        display.event({"event": "warning", "text": warning})
    verified = "emulated" if args.on == "qemu" else "device"
    where = f" on {args.on}" if args.on else ""
    lines = [report.table(), f"{report.samples} samples: the outputs agree"]
    lines.append(f"verified: {verified}{where}")
    display.result(report.to_dict() | {"verified": verified}, "\n".join(lines))
    return 0


def _in_tf32(variant: dict[str, Any], device: str) -> bool:
    """Whether the module multiplies in TF32: it was made so, and runs on a GPU."""
    return bool(variant.get("gpu", {}).get("tf32")) and not device.startswith("CPU")


def bench(args: argparse.Namespace, display: Display) -> int:
    """Time an artifact beside other runtimes, or alone elsewhere."""
    if args.on:
        return _bench_there(args, display)
    report = measure(
        args.artifact,
        args.model,
        against=args.against.split(",") if args.against else None,
        threads=args.threads or None,
        spin_us=args.spin_us,
        calls=args.calls,
        native=args.native,
        on_event=display.event,
    )
    if args.plot is not None:
        report.plot(args.plot)
    display.result(report.to_dict(), report.table())
    return 0


def _bench_there(args: argparse.Namespace, display: Display) -> int:
    with _loaded(args, args.spin_us) as module:
        times = module.bench(args.calls)
        facts = {"on": args.on, "variant": module.variant, **times}
    if args.on == "qemu":
        display.event({"event": "note", "text": "times of an emulator say nothing of a board"})
    text = ", ".join(
        f"{key.removesuffix('_us')} {duration(value * 1e-6)}"
        for key, value in times.items()
        if key.endswith("_us")
    )
    display.result(facts, f"{module.variant} on {args.on}, {times['threads']:.0f} threads: {text}")
    return 0


def _loaded(args: argparse.Namespace, spin_us: int | None = None) -> Any:
    """The module, here or where `--on` says."""
    if not args.on:
        return load(args.artifact, threads=args.threads, spin_us=spin_us)
    from edgec.places import place
    from edgec.remote import load_at

    return load_at(place(args.on), args.artifact, threads=args.threads, spin_us=spin_us)


def profile(args: argparse.Namespace, display: Display) -> int:
    """Show where the time of a run goes."""
    with load(args.artifact, threads=args.threads) as module:
        sample = next(iter(_data(module, args, display, count=1)))
        peaks = _peaks(module, args, display)
    report = measure_steps(
        args.artifact,
        sample,
        threads=args.threads,
        spin_us=args.spin_us,
        runs=args.runs,
        peaks=peaks,
    )
    if args.plot is not None:
        plot(report, args.plot)
    display.result(report.to_dict(), report.table())
    return 0


def _peaks(module: Module, args: argparse.Namespace, display: Display) -> Peaks | None:
    """What this machine can do at most with a module's instructions and number of threads."""
    variant = next(v for v in module.manifest["variants"] if v["id"] == module.variant)
    cache = Cache(Cache.default().path, reuse=not args.no_cache)
    try:
        return measure_peaks(from_facts(variant["target"]), module.threads, cache)
    except EdgecError as error:
        display.event({"event": "note", "text": f"no shares of the machine's peaks: {error.what}"})
        return None


def _data(
    module: Module | RemoteModule, args: argparse.Namespace, display: Display, count: int
) -> Dataset:
    return open_data(
        module.inputs,
        args.input or ["random"],
        normalize=args.normalize,
        count=count,
        seed=args.seed,
        note=lambda text: display.event({"event": "note", "text": text}),
    )


def _describe(name: str, values: Sequence[Array]) -> dict[str, Any]:
    """Type, range and first values of an output over all samples."""
    numbers = np.concatenate([value.astype(np.float64).ravel() for value in values])
    summary = {
        key: float(reduce(numbers)) if numbers.size else None
        for key, reduce in (("min", np.min), ("max", np.max), ("mean", np.mean))
    }
    extents = zip(*(value.shape for value in values), strict=True)
    shape = [same[0] if len(set(same)) == 1 else None for same in extents]
    first = [float(value) for value in numbers[:4]]
    return {"name": name, "dtype": str(values[0].dtype), "shape": shape, **summary, "first": first}


def _row(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What `_describe` found, as a row of the table."""
    shape = ",".join("*" if extent is None else str(extent) for extent in facts["shape"])
    kind = f"{facts['dtype']}[{shape}]"
    numbers = [facts[key] for key in ("min", "max", "mean")]
    return (
        facts["name"],
        kind,
        *("" if number is None else f"{number:.4g}" for number in numbers),
        " ".join(f"{value:.4g}" for value in facts["first"]),
    )


def _write(folder: Path, outputs: Mapping[str, Sequence[Array]]) -> None:
    """NAME.npy per output, samples on axis 0; NAME.0.npy and so on where their shapes differ.

    Names in a model never choose a path.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=str(folder)) from error
    for name, values in outputs.items():
        safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
        if len({value.shape for value in values}) == 1:
            save_npy(folder / f"{safe}.npy", np.stack(values))
            continue
        for index, value in enumerate(values):
            save_npy(folder / f"{safe}.{index}.npy", value)
