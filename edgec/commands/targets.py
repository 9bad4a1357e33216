"""`edgec targets`: what there is to compile for, and what a machine is."""

from __future__ import annotations

import argparse
from typing import Any

from edgec import targets
from edgec.display import Display
from edgec.emit.archive import write_file
from edgec.errors import TargetError, UsageError
from edgec.report import size, table
from edgec.targets import Target

_HEADER = ("target", "processor", "memory", "GPU", "JetPack", "proved here by")


def list_targets(args: argparse.Namespace, display: Display) -> int:
    """List the targets, describe one, or find out what a machine is."""
    if args.name == "probe":
        return _probe(args, display)
    if args.ssh or args.rpc or args.output:
        raise UsageError("only `edgec targets probe` asks a machine", where="--ssh, --rpc, -o")
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


def _probe(args: argparse.Namespace, display: Display) -> int:
    from edgec import probe, probefiles

    if args.ssh and args.rpc:
        raise UsageError("one machine is probed", where="--ssh, --rpc")
    if args.ssh:
        answers = probefiles.over_ssh(args.ssh)
    else:
        answers = probefiles.by_rpc(args.rpc) if args.rpc else probefiles.of_this_machine()
    found = probe.machine(answers)
    target = probe.fitting(found)
    facts = found.to_dict() | {"target": target.name if target else None, "written": None}
    rows = [
        ("machine", found.model),
        ("system", f"{found.system}, {found.libc}" if found.libc else found.system),
        ("cores", " + ".join(f"{count} {kind}" for kind, count in found.cores.items())),
        ("features", " ".join(found.features)),
        ("caches", _cache_sizes(found.l1_bytes, found.l2_bytes, found.l3_bytes)),
        ("memory", f"{found.memory_mib} MiB" if found.memory_mib else ""),
        ("gpu", " ".join([found.gpu, found.gpu_arch, found.driver]).strip()),
        ("jetpack", found.jetpack),
        ("target", target.name if target else f"none: edgec compiles for no {found.arch}"),
    ]
    lines = [f"{key:<10} {value}" for key, value in rows if value]
    if target is not None and args.output is not None:
        text = probe.as_board(args.board or probe.name_of(found), found, target)
        write_file(args.output, [text.encode()])
        targets.resolve(str(args.output))
        facts["written"] = str(args.output)
        lines.append(f"written    {args.output}: edgec compile MODEL --target {args.output}")
    display.result(facts, "\n".join(lines))
    return 0 if target else TargetError.exit_code


def _cache_sizes(first: int, second: int, third: int) -> str:
    parts = [f"L1 {size(first)}" if first else "", f"L2 {size(second)} a core" if second else ""]
    parts.append(f"L3 {size(third)} for all" if third else "")
    return ", ".join(part for part in parts if part)


def _lines(target: Target, here: str) -> list[tuple[str, str]]:
    caches = _cache_sizes(target.l1_bytes, target.l2_bytes, target.l3_bytes)
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
