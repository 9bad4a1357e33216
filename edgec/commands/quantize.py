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
from edgec.quantize.overrides import Overrides, read_overrides
from edgec.quantize.quantizer import Quantized, QuantizeOptions, quantize_model
from edgec.quantize.reader import load_name
from edgec.quantize.recover.recovery import Recovery
from edgec.report import table


def quantize(args: argparse.Namespace, display: Display) -> int:
    """Write the quantized model, and say what was done."""
    suffix = "int8" if args.scheme == "w8a8" else args.scheme
    output = args.output or Path(args.model).with_suffix(f".{suffix}.onnx")
    if args.eval is not None and args.max_drop is None:
        raise UsageError("there is nothing to evaluate for", where="--eval", hint="--max-drop 0.01")
    given = Recovery(args.equalize, args.smooth, args.rounding, args.bias_correction)
    options = QuantizeOptions(
        scheme=args.scheme,
        formula=args.formula,
        calibrator=args.calibrator,
        symmetric=args.symmetric,
        per_channel=args.per_channel,
        io_dtype=args.io_dtype,
        overrides=Overrides() if args.overrides is None else read_overrides(args.overrides),
        profile=args.profile,
        exclude=tuple(args.exclude),
        normalize=tuple(args.normalize),
        samples=args.samples,
        shapes=arguments.shapes(args.shape),
        dims=arguments.single_dims(args.dim),
        recovery=None if args.recover == "auto" and given == Recovery() else given,
        max_drop=args.max_drop,
        metric=None if args.eval is None else metric_of(load_name(args.eval), args.eval),
        gate=args.gate,
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
        "drop": kept.trial.drop,
        "evaluations": kept.evaluations,
        "raised": dict(kept.trial.raised),
        "steps": [asdict(step) for step in kept.steps],
    }
    share = result.share
    return {
        "path": str(output),
        "scheme": result.scheme.name,
        "integer_macs": share and share[0],
        "macs": share and share[1],
        "samples": result.samples,
        "units": result.plan.units,
        "left": result.plan.left,
        "budget": budget,
        "gate": result.verdict and result.verdict.to_dict(),
    }


def _text(result: Quantized, output: Path, full: bool) -> str:
    parts = []
    if full:
        left = list(result.plan.left.items()) or [("nothing", "")]
        parts.append(table(("left in floats", "why"), left, text=(0, 1)))
        if result.verdict is not None and result.verdict.times.units:
            parts.append(result.verdict.table())
    lines = [f"{output}: {_outcome(result)}"]
    if result.kept is not None:
        trial = result.kept.trial
        raised = ", ".join(f"{layer} ({rung})" for layer, rung in sorted(trial.raised.items()))
        lines.append(
            f"worse by {trial.drop:.4g} after {result.kept.evaluations} evaluations; layers raised "
            f"for it: {raised or 'none'}"
        )
    return "\n\n".join([*parts, "\n".join(lines)])


def _outcome(result: Quantized) -> str:
    if not result.scheme.calibrated:
        return f"{_counted(len(result.plan.units), 'layer')} by {result.scheme.name}"
    layers, share = _counted(len(result.plan.weights), "layer"), result.share
    text = f"{layers} in integers, calibrated with {_counted(result.samples, 'sample')}"
    if share is None or not share[1]:
        return text
    return f"{text}; {share[0] / share[1]:.1%} of the multiply-adds are of integers"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s'[: number != 1]}"
