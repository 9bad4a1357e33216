"""The intermediate forms of a compilation, for `--emit` and `--save-temps`.

onnx   the optimised graph, at the model's own opset
relax  the graph as Relax, before and after fusion
tir    every kernel's loops, as scheduled
asm    every kernel's assembly
c      the tables that describe the model to the runtime
so     a shared library that carries its weights
"""

from __future__ import annotations

from pathlib import Path

from edgec.cache import Cache
from edgec.emit.archive import write_file
from edgec.emit.linkable import Linkable, link_standalone
from edgec.emit.toolchain import Toolchain
from edgec.errors import ArtifactError, UsageError
from edgec.graph import Graph
from edgec.targets import Target

KINDS = {"onnx": ".onnx", "relax": ".relax", "tir": ".tir", "asm": ".s", "c": ".c", "so": ".so"}
"""Kinds, and the suffix of the file each is written to."""

FORMS_OF_GRAPH = frozenset(["onnx", "relax", "tir", "asm"])
FORMS_OF_MODULE = frozenset(["c", "so"])


def check_kinds(kinds: list[str]) -> None:
    """Raises UsageError for a kind that does not exist."""
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(
                f"there is no form '{kind}'", where="--emit", hint=f"there is: {', '.join(KINDS)}"
            )


def of_graph(kind: str, graph: Graph, target: Target, winograd: int) -> bytes:
    """The form "onnx", "relax", "tir" or "asm" of an optimised graph, with Winograd's tiles of at
    most the size `winograd`, 0 for none."""
    if kind == "onnx":
        return bytes(graph.to_source_opset().SerializeToString(deterministic=True))
    from edgec.lower import show

    return show.FORMS[kind](graph, target, winograd).encode()


def of_module(kind: str, linkable: Linkable, target: Target, cache: Cache) -> bytes:
    """The form "c" or "so" of a compiled module."""
    if kind == "c":
        return linkable.program_c.encode()
    return link_standalone(linkable, Toolchain.of(target, cache.path))[0]


def write_forms(forms: dict[str, bytes], name: str, output: Path | None) -> list[Path]:
    """One form goes to the file `output`, several into the folder; both have defaults."""
    if len(forms) == 1:
        [(kind, data)] = forms.items()
        paths = {kind: output or Path(f"{name}{KINDS[kind]}")}
    else:
        folder = output or Path(f"{name}.forms")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"cannot be made: {error.strerror}", where=str(folder)) from error
        paths = {kind: folder / f"{name}{KINDS[kind]}" for kind in forms}
    for kind, data in forms.items():
        write_file(paths[kind], [data])
    return list(paths.values())
