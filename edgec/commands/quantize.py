"""`edgec quantize`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgec.commands import arguments
from edgec.display import Display
from edgec.errors import UsageError
from edgec.external import save_model
from edgec.quantize.budget import OutOfBudget, metric_of
from edgec.quantize.quantizer import Quantized, QuantizeOptions, quantize_model
from edgec.quantize.reader import load_name
from edgec.quantize.recover.recovery import Recovery
from edgec.report import table


def quantize(args: argparse.Namespace, display: Display) -> int:
    """Write the quantized model, and say what was done."""
    output = args.output or Path(args.model).with_suffix(".int8.onnx")
    if args.eval is not None and args.max_drop is None:
        raise UsageError("there is nothing to evaluate for", where="--eval", hint="--max-drop 0.01")
    options = QuantizeOptions(
        profile=args.profile,
        exclude=tuple(args.exclude),
        normalize=tuple(args.normalize),
        samples=args.samples,
        shapes=arguments.shapes(args.shape),
        dims=arguments.single_dims(args.dim),
        recovery=Recovery(args.equalize, args.smooth, args.rounding, args.bias_correction),
        max_drop=args.max_drop,
        metric=None if args.eval is None else metric_of(load_name(args.eval), args.eval),
        trusted=args.trusted,
    )
    try:
        result = quantize_model(args.model, args.calib, options, display.event)
    except OutOfBudget as error:
        save_model(error.found.model, output)
        display.event({"event": "warning", "text": f"{output} is the best that was found"})
        raise
    for note in result.notes:
        display.event({"event": "note", "text": note})
    result.save(output)
    display.result(_facts(result, output), _text(result, output, args.report))
    return 0


def _facts(result: Quantized, output: Path) -> dict[str, Any]:
    kept = result.kept
    budget = kept and {
        "drop": kept.drop,
        "evaluations": kept.evaluations,
        "floats": sorted(kept.floats),
        "layers": [asdict(layer) for layer in kept.layers],
    }
    return {
        "path": str(output),
        "samples": result.samples,
        "units": result.plan.units,
        "left": result.plan.left,
        "budget": budget,
    }


def _text(result: Quantized, output: Path, full: bool) -> str:
    parts = []
    if full:
        parts.append(table(("left in floats", "why"), list(result.plan.left.items()), text=(0, 1)))
    lines = [
        f"{output}: {len(result.plan.weights)} layers in integers, calibrated with "
        f"{result.samples} samples"
    ]
    if result.kept is not None:
        floats = ", ".join(sorted(result.kept.floats)) or "none"
        lines.append(
            f"worse by {result.kept.drop:.4g} after {result.kept.evaluations} evaluations; layers "
            f"left in floats for it: {floats}"
        )
    return "\n\n".join([*parts, "\n".join(lines)])
