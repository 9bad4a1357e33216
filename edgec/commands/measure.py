"""`edgec run`, `edgec verify` and `edgec bench`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from edgec.arrays import Array
from edgec.bench import bench as measure
from edgec.data import Dataset, open_data
from edgec.display import Display
from edgec.errors import DataError
from edgec.program import Tensor
from edgec.report import table
from edgec.runtime.load import Module, load
from edgec.verify import verify as compare


def run(args: argparse.Namespace, display: Display) -> int:
    """Run an artifact, show its outputs, and write them where asked."""
    with load(args.artifact, threads=args.threads) as module:
        if args.selftest:
            module.selftest()
            display.result({"selftest": "passed"}, "self-test passed")
            return 0
        data = _data(module, args, display, count=args.samples)
        results = [module.run(sample) for sample in data]
    stacked = {name: np.stack([result[name] for result in results]) for name in results[0]}
    if args.output is not None:
        _write(args.output, stacked)
    rows = [(name, *_describe(values)) for name, values in stacked.items()]
    header = ("output", "type", "min", "max", "mean", "first values")
    facts = [dict(zip(header, row, strict=True)) for row in rows]
    display.result({"samples": len(results), "outputs": facts}, table(header, rows))
    return 0


def verify(args: argparse.Namespace, display: Display) -> int:
    """Compare an artifact with ONNX Runtime on its model."""
    with load(args.artifact, threads=args.threads) as module:
        variant = next(v for v in module.manifest["variants"] if v["id"] == module.variant)
        states = [
            (
                Tensor(s["input"]["name"], s["input"]["dtype"], tuple(s["input"]["shape"])),
                s["output"],
            )
            for s in variant["states"]
        ]
        report = compare(
            module,
            args.against,
            given=_data(module, args, display, count=1) if args.input else (),
            specs=module.inputs,
            states=states,
            evidence=args.artifact.with_suffix(".mismatch"),
            seed=args.seed,
            on_sample=lambda name: display.event(
                {"event": "stage", "stage": f"verify {name}", "state": "start"}
            ),
        )
    for warning in report.warnings:
        display.event({"event": "warning", "text": warning})
    lines = [report.table(), f"{report.samples} samples: the outputs agree", "verified: device"]
    display.result(report.to_dict() | {"verified": "device"}, "\n".join(lines))
    return 0


def bench(args: argparse.Namespace, display: Display) -> int:
    """Time an artifact beside other runtimes."""
    report = measure(
        args.artifact,
        args.model,
        against=args.against.split(",") if args.against else None,
        threads=args.threads or None,
        calls=args.calls,
        on_event=display.event,
    )
    if args.plot is not None:
        report.plot(args.plot)
    display.result(report.to_dict(), report.table())
    return 0


def _data(module: Module, args: argparse.Namespace, display: Display, count: int) -> Dataset:
    return open_data(
        module.inputs,
        args.input or ["random"],
        normalize=args.normalize,
        count=count,
        seed=args.seed,
        note=lambda text: display.event({"event": "note", "text": text}),
    )


def _describe(values: Array) -> tuple[str, ...]:
    """Type, range and first values of an output, samples stacked."""
    kind = f"{values.dtype}{list(values.shape[1:])}".replace(" ", "")
    first = " ".join(f"{value:.4g}" for value in values.ravel()[:4].tolist())
    if not values.size:
        return kind, "", "", "", ""
    numbers = values.astype(np.float64)
    return (
        kind,
        f"{numbers.min():.4g}",
        f"{numbers.max():.4g}",
        f"{numbers.mean():.4g}",
        first,
    )


def _write(folder: Path, outputs: dict[str, Any]) -> None:
    """One .npy per output, samples on axis 0; names in a model never choose a path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in outputs.items():
            safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
            np.save(folder / f"{safe}.npy", values, allow_pickle=False)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=str(folder)) from error
