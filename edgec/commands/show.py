"""`edgec inspect`, `passes`, `doctor` and `cache`."""

from __future__ import annotations

import argparse
import inspect as python
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec import targets
from edgec.cache import Cache
from edgec.commands import arguments
from edgec.display import Display
from edgec.doctor import examine
from edgec.errors import ModelError, UsageError
from edgec.report import size, table

if TYPE_CHECKING:
    from edgec.lower.context import Unsupported

_ZIP = b"PK\x03\x04"


def inspect(args: argparse.Namespace, display: Display) -> int:
    """Show what a model or an artifact is."""
    if _starts_as_zip(args.file):
        from edgec.emit.card import describe_artifact, render_artifact

        facts = describe_artifact(args.file)
        display.result(facts, render_artifact(facts))
        return 0
    from edgec.inspect import describe, render

    sizes = {name: values[0] for name, values in arguments.dims(args.dim).items()}
    shapes = arguments.shapes(args.shape)
    card = describe(args.file, shapes=shapes, dims=sizes)
    try:
        refused = _unsupported(args.file, shapes, sizes)
    except ModelError as error:
        unknown = f"lowering     unknown: {error.what}\n             {error.hint}"
        display.result(card | {"unsupported": None}, f"{render(card)}\n{unknown}")
        return 0
    nodes = [node._asdict() for node in refused]
    display.result(card | {"unsupported": nodes}, f"{render(card)}\n{_support(refused)}")
    return 0


def _unsupported(
    model: Path, shapes: dict[str, tuple[int, ...]], dims: dict[str, int]
) -> list[Unsupported]:
    """The nodes left at the default level that cannot be lowered.

    Raises:
        ModelError: a dimension has no size.
    """
    from edgec.graph import load
    from edgec.lower.convert import unsupported
    from edgec.passes import LEVELS
    from edgec.rewrite import optimize

    graph = load(model, shapes=shapes, dims=dims)
    optimize(graph, LEVELS[2])
    return unsupported(graph)


def _support(refused: list[Unsupported]) -> str:
    if not refused:
        return "lowering     every node can be lowered, for every target"
    width = max(len(node.op) for node in refused)
    lines = [f"  {node.op:<{width}}  '{node.node}': {node.why}" for node in refused]
    return "\n".join([f"lowering     {len(lines)} nodes cannot be lowered", *lines])


def list_passes(args: argparse.Namespace, display: Display) -> int:
    """List the passes, or print one's specification."""
    from edgec.passes import LEVELS, PASSES

    if args.name:
        if args.name not in PASSES:
            raise UsageError(
                f"there is no pass '{args.name}'", hint=f"there is: {', '.join(PASSES)}"
            )
        module = sys.modules[PASSES[args.name].__module__]
        text = python.cleandoc(module.__doc__ or "")
        display.result({"name": args.name, "text": text}, text)
        return 0
    listed = []
    for name, kind in sorted(PASSES.items()):
        levels = [level for level, passes in LEVELS.items() if any(p.name == name for p in passes)]
        about = (sys.modules[kind.__module__].__doc__ or "").strip().splitlines()[0]
        listed.append({"name": name, "levels": levels, "numerics": kind.numerics, "summary": about})
    rows = [
        (item["name"], f"O{item['levels'][0]}" if item["levels"] else "", item["summary"])
        for item in listed
    ]
    lines = [f"{name:<22} {level:<4} {about}" for name, level, about in rows]
    display.result({"passes": listed}, "\n".join(lines))
    return 0


def doctor(args: argparse.Namespace, display: Display) -> int:
    """Check this installation, and what compiling for a target needs."""
    target = targets.resolve(args.target) if args.target else None
    if target is not None and args.ndk:
        target = targets.for_android(target)
    if target is not None and args.cuda_path:
        target = replace(target, cuda_path=args.cuda_path)
    findings = examine(target, cc=args.cc, ndk=args.ndk)
    lines = [
        f"{'ok     ' if item.ok else 'missing' if item.required else 'absent '} {item.what}: "
        f"{item.found}" + (f"\n        {item.fix}" if item.fix and not item.ok else "")
        for item in findings
    ]
    healthy = all(item.ok or not item.required for item in findings)
    facts: dict[str, Any] = {"healthy": healthy, "findings": [item.to_dict() for item in findings]}
    display.result(facts, "\n".join(lines))
    return 0 if healthy else 4


def cache(args: argparse.Namespace, display: Display) -> int:
    """Show or clear the cache."""
    store = Cache.default()
    if args.action == "clear":
        store.clear()
    info = store.info()
    rows = [(kind, str(count), size(info.nbytes[kind])) for kind, count in info.entries.items()]
    facts = {"path": str(info.path), "entries": info.entries, "bytes": info.nbytes}
    body = table(("kind", "entries", "size"), rows) if rows else "empty"
    display.result(facts, f"{info.path}\n{body}")
    return 0


def _starts_as_zip(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(4) == _ZIP
    except OSError:
        return False
