"""The artifact: what stands in `manifest.json`, and which members lie beside it."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgec import __version__
from edgec.emit.cuda_glue import GpuPart, gpu_facts
from edgec.emit.glue import symbol_of
from edgec.emit.linkable import Linkable
from edgec.emit.toolchain import RUNTIME, c_name
from edgec.errors import ArtifactError
from edgec.plan import Plan
from edgec.program import Call, Extent, Repeat, Step, Tensor
from edgec.qdq.differences import Difference
from edgec.runtime.load import read_manifest, read_member
from edgec.targets import Target, from_facts
from edgec.tune.lookup import Choice

FORMAT_VERSION = (1, 0)
ABI_VERSION = 1


@dataclass(frozen=True)
class Variant:
    """One build of the model: for one target, one set of shapes, one precision.

    `kernels` maps kernel names to their symbol and the bytes of their object; `tuned` has the
    records that some of them were compiled by. `gpu` is what it has for the target's GPU,
    `integers` the share of multiply-accumulates that are of integers, `differences` how they differ
    from what ONNX Runtime makes of the quantized model.
    """

    id: str
    target: Target
    dims: Mapping[str, int]
    plan: Plan
    linkable: Linkable
    library: bytes
    kernels: Mapping[str, tuple[str, int]]
    kernels_from_cache: int
    scratch_bytes: int
    golden: bytes
    linker: str
    tuned: Mapping[str, Choice]
    gpu: GpuPart | None = None
    integers: float = 0.0
    differences: Sequence[Difference] = ()


@dataclass(frozen=True)
class Source:
    """Where the model came from: SHA-256 of its bytes, and the opset it was written in."""

    sha256: str
    opset: int


def manifest(
    name: str, source: Source, variants: Sequence[Variant], verified: Mapping[str, str]
) -> dict[str, Any]:
    """The manifest without its list of files; `verified` says per variant how far the proof
    went."""
    return {
        "format": "edgec",
        "version": list(FORMAT_VERSION),
        "name": name,
        "producer": {"edgec": __version__, "tvm": metadata.version("apache-tvm")},
        "source": {"sha256": source.sha256, "opset": source.opset},
        "header": f"{c_name(name)}.h",
        "signature": None,
        "variants": [_variant(name, variant, verified[variant.id]) for variant in variants],
    }


def members(name: str, variants: Sequence[Variant]) -> dict[str, bytes]:
    """The files of an artifact besides the manifest, by their path in it."""
    files = {
        f"{c_name(name)}.h": header(name).encode(),
        "edgec.h": (RUNTIME / "edgec.h").read_bytes(),
        "load.py": (RUNTIME / "load.py").read_bytes(),
    }
    for variant in variants:
        files[_library_path(name, variant)] = variant.library
        files[f"{variant.id}/program.c"] = variant.linkable.program_c.encode()
        files[f"{variant.id}/kernels.zip"] = _stored_zip(variant.linkable.objects)
        files[f"golden/{variant.id}.bin"] = variant.golden
        if variant.linkable.weights:
            files[_weights_path(variant)] = variant.linkable.weights
    return files


def header(name: str) -> str:
    """NAME.h: the declaration of a model's one symbol."""
    guard = f"EDGEC_{c_name(name).upper()}_H"
    return (
        "/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */\n"
        f"#ifndef {guard}\n#define {guard}\n\n"
        '#include "edgec.h"\n\n'
        '#ifdef __cplusplus\nextern "C" {\n#endif\n\n'
        f"const edgec_model *{symbol_of(name)}(void);\n\n"
        "#ifdef __cplusplus\n}\n#endif\n#endif\n"
    )


def _variant(name: str, variant: Variant, verified: str) -> dict[str, Any]:
    program, target = variant.plan.program, variant.target
    return {
        "id": variant.id,
        "dims": dict(variant.dims),
        "target": target.facts(),
        "requires": {
            "os": "linux",
            "arch": target.arch,
            "features": list(target.cpu_flags),
            "libc": target.libc,
        },
        "abi": ABI_VERSION,
        "linker": variant.linker,
        "library": _library_path(name, variant),
        "symbol": symbol_of(name),
        "program": f"{variant.id}/program.c",
        "objects": f"{variant.id}/kernels.zip",
        "weights": _weights_path(variant) if variant.linkable.weights else None,
        "weights_bytes": len(variant.linkable.weights),
        "golden": f"golden/{variant.id}.bin",
        "inputs": [_tensor(tensor) for tensor in program.inputs],
        "outputs": [_output(tensor, program.extents) for tensor in program.outputs],
        "states": [
            {"input": _tensor(state.input), "output": state.output_name} for state in program.states
        ],
        "arena_bytes": variant.plan.arena_bytes,
        "arena_bound_bytes": variant.plan.bound_bytes,
        "given_order_bound_bytes": variant.plan.given_bound_bytes,
        "scratch_bytes": variant.scratch_bytes,
        "kernels": [
            {"name": kernel, "symbol": symbol, "bytes": nbytes, **_tuned(variant, kernel)}
            for kernel, (symbol, nbytes) in variant.kernels.items()
        ],
        "steps": [_step(step, variant.plan) for step in program.steps],
        "integers": round(variant.integers, 6),
        "differences": [each.to_dict() for each in variant.differences],
        **({"gpu": gpu_facts(variant.gpu, target)} if variant.gpu else {}),
        "verified": verified,
    }


def _tuned(variant: Variant, kernel: str) -> dict[str, Any]:
    """ "tuned" of a kernel whose schedule is not the rule's: whose measurement it was chosen by."""
    choice = variant.tuned.get(kernel)
    if choice is None:
        return {}
    record = choice.record
    gain = None if record.gain is None else round(record.gain, 3)
    return {
        "tuned": {
            "from": choice.origin,
            "machine": record.machine,
            "date": record.date,
            "threads": record.threads,
            "gain": gain,
        }
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _output(tensor: Tensor, extents: Sequence[Extent]) -> dict[str, Any]:
    """With "dynamic" where a run decides the extent along an axis; "shape" has the largest then."""
    decided = {e.output: {"dynamic": {"axis": e.axis}} for e in extents}
    return _tensor(tensor) | decided.get(tensor.name, {})


def _step(step: Step, plan: Plan) -> dict[str, Any]:
    match step:
        case Call():
            facts = {"kernel": step.kernel, "nodes": list(step.nodes), "macs": step.macs}
            return facts | {"touches": _touches(step, plan)}
        case Repeat():
            return {"repeat": step.times, "body": [_step(inner, plan) for inner in step.body]}
        case _:
            return {
                "then": [_step(inner, plan) for inner in step.then],
                "else": [_step(inner, plan) for inner in step.otherwise],
            }


def _touches(call: Call, plan: Plan) -> list[list[str | int]]:
    """[area, offset, bytes] of each argument; only what lies in the arena shares an area."""
    found: list[list[str | int]] = []
    for position, number in enumerate((*call.inputs, *call.outputs)):
        buffers = plan.program.buffers
        nbytes = call.traffic[position] if call.traffic else buffers[number].nbytes
        number, offset = plan.program.whole(number)
        buffer = buffers[number]
        shared = buffer.where == "arena"
        area = "arena" if shared else f"{buffer.where} {buffer.index}"
        found.append([area, offset + (plan.offsets[number] if shared else 0), nbytes])
    return found


def _library_path(name: str, variant: Variant) -> str:
    return str(Path(variant.id) / f"lib{c_name(name)}.so")


def _weights_path(variant: Variant) -> str:
    return f"weights/{hashlib.sha256(variant.linkable.weights).hexdigest()}.bin"


def _stored_zip(objects: Sequence[bytes]) -> bytes:
    """Objects as 00000.o, 00001.o, ... of a ZIP that depends on nothing but them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for index, data in enumerate(objects):
            archive.writestr(zipfile.ZipInfo(f"{index:05}.o"), data)
    return stream.getvalue()


def linkable(path: Path, identifier: str | None = None) -> tuple[Linkable, Target]:
    """What the artifact at `path` keeps of a variant for linking it anew, and its target.

    Raises:
        ArtifactError: the artifact is damaged, or has no such variant.
    """
    facts = read_manifest(path)
    variants = {variant["id"]: variant for variant in facts["variants"]}
    chosen = variants.get(identifier or next(iter(variants)))
    if chosen is None:
        known = ", ".join(variants)
        raise ArtifactError(f"no variant '{identifier}'", where=str(path), hint=f"it has: {known}")
    with zipfile.ZipFile(io.BytesIO(read_member(path, chosen["objects"]))) as archive:
        objects = tuple(archive.read(name) for name in sorted(archive.namelist()))
    weights = read_member(path, chosen["weights"]) if chosen["weights"] else b""
    golden = facts["files"][chosen["golden"]]["sha256"]
    text = read_member(path, chosen["program"]).decode()
    target = from_facts(chosen["target"])
    return Linkable(facts["name"], objects, text, weights, golden), target
