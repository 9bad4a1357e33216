"""`edgec targets`: what there is to compile for."""

from __future__ import annotations

import argparse
from typing import Any

from edgec import targets
from edgec.display import Display
from edgec.report import size, table
from edgec.targets import Target

_HEADER = ("target", "processor", "memory", "GPU", "JetPack", "proved here by")


def list_targets(args: argparse.Namespace, display: Display) -> int:
    """List the targets, or describe one."""
    if args.name:
        return _describe(args.name, display)
    listed = [_facts(name) for name in targets.names()]
    rows = [_row(facts) for facts in listed]
    display.result(
        {"targets": listed}, table(_HEADER, rows, text=range(len(_HEADER))) + "\n" + _ALSO
    )
    return 0


_ALSO = """\
`edgec targets NAME` says all about one. A feature is added by its name: x86-64-v4+avx512vnni.
A board of your own is a file: --target my_board.toml (docs/targets.md)."""


def _facts(name: str) -> dict[str, Any]:
    """What the list says of a target."""
    from edgec.proof import means_of_proof

    target = targets.resolve(name)
    about = target.summary
    if name == "host":
        about = f"this machine: {target.name}"
    elif name in targets.aliases():
        about = f"{target.name}: {targets.aliases()[name][1]}"
    return {
        "name": name,
        "target": target.name,
        "level": "" if name == "host" else target.level,
        "summary": about,
        "arch": target.arch,
        "cores": dict(target.cores),
        "vector_bits": target.vector_bits,
        "ram_mib": list(target.ram_mib),
        "gpu_arch": target.gpu_arch,
        "jetpack": target.jetpack,
        "cuda": target.cuda,
        "libc": target.libc,
        "proof": means_of_proof(target),
    }


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    name, target = facts["name"], facts["target"]
    cores = " + ".join(f"{count} {core}" for core, count in facts["cores"].items())
    memory = "" if not facts["ram_mib"] else _memory(facts["ram_mib"])
    cuda = f"{facts['jetpack']} (CUDA {facts['cuda']})" if facts["jetpack"] else ""
    if name in targets.aliases() or name == "host":
        return name, f"is {target}", "", "", "", facts["proof"]
    return name, cores or f"any {facts['arch']}", memory, facts["gpu_arch"], cuda, facts["proof"]


def _memory(sizes: list[int]) -> str:
    """Sizes in MiB as GB."""
    texts = [f"{size / 1024:g}" for size in sizes]
    return f"{texts[0]} GB" if len(texts) == 1 else f"{texts[0]} to {texts[-1]} GB"


def _describe(name: str, display: Display) -> int:
    target = targets.resolve(name)
    here = "yes" if targets.runs_here(target) else "no"
    rows = [(key, value) for key, value in _lines(target, here) if value]
    if name in targets.aliases():
        rows.insert(1, ("alias", f"{name}: {targets.aliases()[name][1]}"))
    facts = target.facts() | {"runs_here": here == "yes"}
    display.result(facts, "\n".join(f"{key:<10} {value}" for key, value in rows))
    return 0


def _lines(target: Target, here: str) -> list[tuple[str, str]]:
    caches = f"L1 {size(target.l1_bytes)}, L2 {size(target.l2_bytes)} a core"
    if target.l3_bytes:
        caches += f", L3 {size(target.l3_bytes)} for all"
    gpu = f"{target.gpu}, {target.gpu_arch}" if target.gpu else target.gpu_arch
    return [
        ("name", target.name),
        ("summary", target.summary),
        ("level", target.level),
        ("cores", " + ".join(f"{count} {core}" for core, count in target.cores)),
        ("memory", _memory(list(target.ram_mib)) if target.ram_mib else ""),
        ("triple", target.triple),
        ("cpu", " ".join([target.mcpu, *target.features])),
        ("needs", " ".join(target.cpu_flags)),
        ("libc", target.libc if target.libc == "musl" else f"{target.libc} or newer"),
        ("vectors", f"{target.vector_registers} registers of {target.vector_bits} bits"),
        ("fma units", str(target.fma_units)),
        ("caches", caches),
        ("gpu", gpu),
        ("jetpack", f"{target.jetpack}, CUDA {target.cuda}" if target.jetpack else ""),
        ("takes", " ".join(f"+{name}" for name, _ in target.optional)),
        ("emulated as", target.qemu_cpu),
        ("runs here", here),
    ]
