"""`edgec optimize`, `bisect` and `diff`."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgec.commands import arguments
from edgec.display import Display
from edgec.external import write_file
from edgec.graph import load
from edgec.optimizer import Pipeline, check_names, load_pass, optimize_model
from edgec.optreport import OptimizeReport, pass_table
from edgec.rewrite import Event


def optimize(args: argparse.Namespace, display: Display) -> int:
    """Write the optimised model, and say what was done."""
    pipeline, named = _pipeline(args)
    output = args.output or Path(args.model).with_suffix(".opt.onnx")
    check_names(args.print_after, pipeline.chosen())

    def show(event: Event) -> None:
        if event.kind == "pass" and event.name in args.print_after:
            from edgec.compiler import to_text

            text = to_text(event.graph.to_onnx())
            display.event({"event": "text", "text": f"after {event.name}:\n{text}"})

    proof = None
    if args.verify:
        from edgec.passproof import PassProof

        proof = PassProof(output.with_suffix(".rejected"), named)
    result = optimize_model(args.model, pipeline, verify=proof, on_event=show)
    for note in result.notes:
        display.event({"event": "note", "text": note})
    for each in result.passes:
        if each.rolled_back:
            display.event({"event": "warning", "text": f"{each.name} undone: {each.rolled_back}"})
    source_bytes = Path(args.model).stat().st_size
    result.save(output)
    report = OptimizeReport(
        str(args.model), str(output), source_bytes, output.stat().st_size, result
    )
    if args.time_passes:
        display.event({"event": "text", "text": pass_table(result.passes)})
    if isinstance(args.report, Path):
        write_file(args.report, [report.html().encode()])
    display.result(report.to_dict(), report.text() if args.report else report.summary())
    return 0


def bisect(args: argparse.Namespace, display: Display) -> int:
    """Find the first rewrite that makes the model wrong."""
    from edgec.bisect import bisect as find_guilty

    pipeline, named = _pipeline(args)
    folder = args.output or Path(args.model).with_suffix(".guilty")
    found = find_guilty(args.model, pipeline, folder, named)
    display.result(found.to_dict(), found.text())
    return 0


def diff(args: argparse.Namespace, display: Display) -> int:
    """Show what changed between two models."""
    from edgec.modeldiff import diff as compare_models

    sides = (load(path, symbolic=True, assume_batch=False) for path in (args.before, args.after))
    found = compare_models(*sides)
    display.result(found.to_dict(), found.text())
    return 0


def _pipeline(args: argparse.Namespace) -> tuple[Pipeline, dict[str, list[str]]]:
    """The pipeline, and by name of a user's pass the options that named it."""
    own = {text: load_pass(text) for text in args.own}
    pipeline = Pipeline(
        passes=args.passes,
        level=2 if args.level is None else args.level,
        disable=args.disable,
        extra=tuple(own.values()),
        opset=args.opset,
        shapes=arguments.shapes(args.shape),
        dims=arguments.single_dims(args.dim),
        stop_after=args.stop_after,
        trusted=args.trusted,
    )
    return pipeline, {each.name: ["--pass", text] for text, each in own.items()}
