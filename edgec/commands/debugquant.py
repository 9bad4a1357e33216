"""`edgec debug-quant`."""

from __future__ import annotations

import argparse

from edgec.commands import arguments
from edgec.debugquant.debug import DebugOptions, debug_quant
from edgec.debugquant.page import page
from edgec.display import Display
from edgec.external import write_file


def debug(args: argparse.Namespace, display: Display) -> int:
    """Show where the error of a quantized model comes from."""
    options = DebugOptions(
        normalize=args.normalize,
        samples=args.samples,
        shapes=arguments.shapes(args.shape),
        dims=arguments.single_dims(args.dim),
        trusted=args.trusted,
    )
    report = debug_quant(args.model, args.quantized, args.calib, options, display.event)
    for note in report.notes:
        display.event({"event": "note", "text": note})
    if args.html is not None:
        write_file(args.html, [page(report).encode()])
    display.result(report.to_dict(), report.text(args.worst))
    return 0
