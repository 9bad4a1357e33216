"""`edgec compile` and `edgec export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.cache import Cache
from edgec.commands import arguments
from edgec.compiler import ModelSource, Result, compile_model, emit_forms, source_files
from edgec.display import Display
from edgec.emit.archive import write_file
from edgec.emit.artifact import linkable
from edgec.emit.export import export as export_files
from edgec.emit.linkable import link_runner
from edgec.emit.toolchain import Toolchain
from edgec.errors import ArtifactError, UsageError
from edgec.options import Options
from edgec.optreport import pass_table
from edgec.report import duration, size
from edgec.tune.records import Store

if TYPE_CHECKING:
    import onnx


def compile_(args: argparse.Namespace, display: Display) -> int:
    """Compile a model, or write some of its intermediate forms."""
    options = arguments.options(
        args,
        targets=tuple(args.target or ["host"]),
        name=args.name,
        require=args.require,
        tf32=args.tf32,
        records=args.records,
        bundled=args.bundled,
        threads=args.threads,
    )
    if args.tune:
        from edgec.commands.tune import tune_before

        options = tune_before(args.model, options, args.tune, display)
    source: ModelSource = args.model
    if args.quantize:
        source, options = _quantized(args, options, display)
    print_after = frozenset(args.print_after)
    if args.emit:
        written = emit_forms(
            source,
            args.emit.split(","),
            args.output,
            options,
            print_after=print_after,
            on_event=display.event,
        )
        if args.dependencies:
            _write_dependencies(args, options.records, written)
        display.result({"written": [str(path) for path in written]}, "")
        return 0
    output = args.output or Path(Path(args.model).stem + ".edgec")
    observe = args.print_after or args.time_passes or args.save_temps is not None
    result = compile_model(
        source,
        output,
        options,
        cache=replace(Cache.default(), reuse=not args.no_cache),
        reuse=not observe,
        print_after=print_after,
        save_temps=args.save_temps,
        on_event=display.event,
    )
    if args.time_passes:
        display.event({"event": "text", "text": pass_table(result.passes)})
    if args.dependencies:
        _write_dependencies(args, options.records, [output])
    if args.runner:
        _write_runner(output, output.with_suffix(".run"), None, args)
    display.result(_facts(result), _summary(result))
    return 0


def export(args: argparse.Namespace, display: Display) -> int:
    """Write a variant as libraries, headers and build files for C and C++."""
    model, target = linkable(args.artifact, args.variant)
    toolchain = Toolchain.of(target, Cache.default().path, args.cc, args.ndk)
    written = export_files(model, args.folder, toolchain)
    if args.runner:
        runner = args.folder / "bin" / f"{model.c_name}-run"
        _write_runner(args.artifact, runner, args.variant, args)
        written.append(runner)
    paths = [str(path) for path in written]
    display.result({"target": target.name, "written": paths}, "\n".join(paths))
    return 0


def _quantized(
    args: argparse.Namespace, options: Options, display: Display
) -> tuple[onnx.ModelProto, Options]:
    """The model, quantized for its target, and options that fit it."""
    from edgec.quantize.quantizer import QuantizeOptions, quantize_model

    how = QuantizeOptions(
        scheme=args.quantize,
        profile=options.targets[0] if len(options.targets) == 1 else "portable",
        normalize=tuple(args.normalize),
        shapes=arguments.shapes(args.shape),
        dims=arguments.single_dims(args.dim),
        recovery=None,
        gate=args.gate,
        trusted=args.trusted,
    )
    result = quantize_model(args.model, args.calib, how, display.event)
    for note in result.notes:
        display.event({"event": "note", "text": note})
    name = options.name or Path(args.model).stem
    return result.model, replace(options, name=name, shapes={}, dims={})


def _write_runner(
    artifact: Path, path: Path, variant: str | None, args: argparse.Namespace
) -> None:
    model, target = linkable(artifact, variant)
    toolchain = Toolchain.of(target, Cache.default().path, args.cc, args.ndk)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot be made: {error.strerror}", where=str(path.parent)) from error
    write_file(path, [link_runner(model, toolchain)], executable=True)


def _write_dependencies(
    args: argparse.Namespace, records: Path | None, outputs: Sequence[Path]
) -> None:
    """A make rule beside the first output: the outputs depend on the model, its external data, the
    files of calibration data and the records; a file that is gone is no error."""
    made = " ".join(_for_make(output) for output in outputs)
    data = [path for path in map(Path, args.calib) if path.is_file()]
    files = [*source_files(args.model), *data, *([Store(records).file] if records else [])]
    needed = [_for_make(path) for path in files]
    rules = [f"{made}: {' '.join(needed)}\n", *(f"\n{name}:\n" for name in needed)]
    path = outputs[0]
    write_file(path.with_name(f"{path.name}.d"), ["".join(rules).encode()])


def _for_make(path: Path) -> str:
    text = str(path)
    if "\n" in text:
        raise UsageError("make cannot name a file with a line break", where="-MD")
    return text.replace("$", "$$").replace(" ", "\\ ").replace("#", "\\#")


def _facts(result: Result) -> dict[str, Any]:
    return {
        "path": str(result.path),
        "bytes": result.path.stat().st_size,
        "cached": result.cached,
        "seconds": result.seconds,
        "variants": [
            {
                key: variant[key]
                for key in (
                    "id",
                    "verified",
                    "arena_bytes",
                    "arena_bound_bytes",
                    "given_order_bound_bytes",
                    "scratch_bytes",
                    "weights_bytes",
                )
            }
            | {
                "kernels": len(variant["kernels"]),
                "tuned": _tuned(variant),
                "steps": len(variant["steps"]),
            }
            for variant in result.manifest["variants"]
        ],
    }


def _tuned(variant: dict[str, Any]) -> int:
    """How many kernels have a schedule that tuning found."""
    return sum("tuned" in kernel for kernel in variant["kernels"])


def _summary(result: Result) -> str:
    lines = []
    for variant in result.manifest["variants"]:
        tuned = f" ({_tuned(variant)} tuned)" if _tuned(variant) else ""
        lines += [
            f"{variant['id']}: {len(variant['steps'])} steps, "
            f"{len(variant['kernels'])} kernels{tuned}, "
            f"weights {size(variant['weights_bytes'])}",
            f"  arena {size(variant['arena_bytes'])}, bound {size(variant['arena_bound_bytes'])} "
            f"({size(variant['given_order_bound_bytes'])} in the given order), "
            f"scratch {size(variant['scratch_bytes'])} a thread",
        ]
    took = duration(sum(result.seconds.values()))
    origin = "from the cache" if result.cached else f"in {took}"
    lines.append(f"{result.path}: {size(result.path.stat().st_size)} {origin}")
    proofs = ", ".join(sorted({variant["verified"] for variant in result.manifest["variants"]}))
    return "\n".join([*lines, f"verified: {proofs}"])
