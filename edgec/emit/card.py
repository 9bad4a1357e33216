"""What an artifact holds, for `edgec inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgec.report import size
from edgec.runtime.load import read_manifest


def describe_artifact(path: Path) -> dict[str, Any]:
    """The manifest, with the file's size.

    Raises:
        ArtifactError: the file is damaged or no edgec artifact.
    """
    return read_manifest(path) | {"path": str(path), "bytes": path.stat().st_size}


def render_artifact(facts: Mapping[str, Any]) -> str:
    """The artifact as text for a terminal."""
    producer = facts["producer"]
    lines = [
        f"artifact     {facts['name']}, {size(facts['bytes'])}, format "
        + ".".join(map(str, facts["version"])),
        f"compiled by  edgec {producer['edgec']}, TVM {producer['tvm']}",
        f"model        sha256 {facts['source']['sha256'][:16]}...",
        f"opset        {facts['source']['opset']}",
    ]
    for variant in facts["variants"]:
        lines += ["", *_variant(variant, facts["files"])]
    return "\n".join(lines)


def _variant(variant: Mapping[str, Any], files: Mapping[str, Any]) -> list[str]:
    requires = variant["requires"]
    library = files[variant["library"]]["size"]
    lines = [
        f"variant      {variant['id']}",
        f"  needs      {requires['os']} on {requires['arch']}, {requires['libc']}, "
        + " ".join(requires["features"]),
        f"  verified   {variant['verified']}",
        *(f"  input      {_tensor(tensor)}" for tensor in variant["inputs"]),
        *(f"  output     {_tensor(tensor)}" for tensor in variant["outputs"]),
        *(f"  state      {s['output']} -> {_tensor(s['input'])}" for s in variant["states"]),
        f"  weights    {size(variant['weights_bytes'])}",
        f"  library    {size(library)}",
        f"  arena      {size(variant['arena_bytes'])}, "
        f"bound {size(variant['arena_bound_bytes'])}, "
        f"{size(variant['given_order_bound_bytes'])} in the given order",
        f"  scratch    {size(variant['scratch_bytes'])} a thread",
        f"  linked by  {variant['linker']}",
        "",
    ]
    rows = [
        (step.get("kernel", "repeat" if "repeat" in step else "select"), _nodes(step))
        for step in variant["steps"]
    ]
    width = max((len(kernel) for kernel, _ in rows), default=0)
    return lines + [f"  {kernel:<{width}}  {nodes}" for kernel, nodes in rows]


def _nodes(step: Mapping[str, Any]) -> str:
    names = [name if len(name) < 28 else f"...{name[-24:]}" for name in step.get("nodes", [])]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _tensor(tensor: Mapping[str, Any]) -> str:
    shape = [str(extent) for extent in tensor["shape"]]
    if "dynamic" in tensor:
        axis = tensor["dynamic"]["axis"]
        shape[axis] = f"0..{shape[axis]}"
    return f"{tensor['name']} {tensor['dtype']}[{', '.join(shape)}]"
