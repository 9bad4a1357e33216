"""What a machine is, by what it says of itself (`edgec.probefiles`), and the target that fits."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from edgec import targets
from edgec.probefiles import CPU, Answers
from edgec.targets import Target

_PARTS = {
    (0x41, 0xC05): "cortex-a5",
    (0x41, 0xC07): "cortex-a7",
    (0x41, 0xC08): "cortex-a8",
    (0x41, 0xC09): "cortex-a9",
    (0x41, 0xC0D): "cortex-a12",
    (0x41, 0xC0E): "cortex-a17",
    (0x41, 0xC0F): "cortex-a15",
    (0x41, 0xD01): "cortex-a32",
    (0x41, 0xD03): "cortex-a53",
    (0x41, 0xD04): "cortex-a35",
    (0x41, 0xD05): "cortex-a55",
    (0x41, 0xD07): "cortex-a57",
    (0x41, 0xD08): "cortex-a72",
    (0x41, 0xD09): "cortex-a73",
    (0x41, 0xD0A): "cortex-a75",
    (0x41, 0xD0B): "cortex-a76",
    (0x41, 0xD0C): "neoverse-n1",
    (0x41, 0xD0D): "cortex-a77",
    (0x41, 0xD40): "neoverse-v1",
    (0x41, 0xD41): "cortex-a78",
    (0x41, 0xD42): "cortex-a78ae",
    (0x41, 0xD44): "cortex-x1",
    (0x41, 0xD46): "cortex-a510",
    (0x41, 0xD47): "cortex-a710",
    (0x41, 0xD48): "cortex-x2",
    (0x41, 0xD49): "neoverse-n2",
    (0x41, 0xD4D): "cortex-a715",
    (0x41, 0xD4F): "neoverse-v2",
    (0x41, 0xD80): "cortex-a520",
    (0x41, 0xD81): "cortex-a720",
    (0x41, 0xD83): "neoverse-v3ae",
    (0x41, 0xD84): "neoverse-v3",
    (0x4E, 0x004): "carmel",
}
"""Cores by implementer and part, as the main ID register has them (Arm's Technical Reference
Manuals; Linux, arch/arm64/include/asm/cputype.h), by LLVM's names."""

_L4T = {"32": "4", "35": "5", "36": "6", "38": "7"}
"""JetPack by the release of Jetson Linux."""


@dataclass(frozen=True)
class Machine:
    """A machine as it was found; what it does not tell is empty or 0.

    `cores` has their number by kind, fastest first; `features` are those that all of them have, in
    Linux's words. Caches are what one core of the fastest kind has to itself, a share of those it
    shares, but for the last level.
    """

    model: str
    arch: str
    system: str
    libc: str
    cores: dict[str, int]
    features: tuple[str, ...]
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    memory_mib: int
    gpu: str
    gpu_arch: str
    driver: str
    jetpack: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"features": list(self.features)}


def machine(answers: Answers) -> Machine:
    """What the answers of a machine say."""
    texts = {key: data.decode(errors="replace").strip() for key, data in answers.items()}
    blocks = _processors(texts.get("/proc/cpuinfo", ""))
    kinds = [_kind(block) for block in blocks]
    first = {kind: cpu for cpu, kind in reversed(list(enumerate(kinds)))}
    by_speed = sorted(first, key=lambda kind: -_speed(texts, first[kind]))
    caches = _caches(texts, first[by_speed[0]]) if by_speed else {}
    flags = [set(_either(block, "flags", "Features").split()) for block in blocks]
    arch = texts.get("!machine", "")
    if arch in ("aarch64", "armv8l") and texts.get("!bits") == "32":
        arch = "armv7l"
    release = re.search(r"# R(\d+)", texts.get("/etc/nv_tegra_release", ""))
    gpu = [
        part.strip() for part in texts.get("!gpu", "").splitlines()[:1] for part in part.split(",")
    ]
    memory = re.search(r"MemTotal:\s*(\d+)", texts.get("/proc/meminfo", ""))
    system = re.search(r'PRETTY_NAME="?([^"\n]*)', texts.get("/etc/os-release", ""))
    model = texts.get("/proc/device-tree/model", "").rstrip("\0")
    named = len(gpu) == 3 and re.fullmatch(r"\d+\.\d+", gpu[1])
    return Machine(
        model=model or (_either(blocks[0], "model name", "Hardware") if blocks else ""),
        arch=arch,
        system=system[1] if system else "",
        libc=_libc(texts.get("!libc", "")),
        cores={kind: Counter(kinds)[kind] for kind in by_speed},
        features=tuple(sorted(set.intersection(*flags))) if flags else (),
        l1_bytes=caches.get(1, 0),
        l2_bytes=caches.get(2, 0),
        l3_bytes=caches.get(3, 0),
        memory_mib=int(memory[1]) // 1024 if memory else 0,
        gpu=gpu[0] if named else "",
        gpu_arch=f"sm_{gpu[1].replace('.', '')}" if named else "",
        driver=gpu[2] if named else "",
        jetpack=_L4T.get(release[1], "") if release else "",
    )


def fitting(found: Machine) -> Target | None:
    """The target that fits a machine best, None where edgec has none for it.

    A board that names itself, else one with the same cores, else the highest level with all the
    features that the machine adds to it.
    """
    usable = [
        target
        for name in targets.names()
        if name not in ("host", *targets.aliases())
        and (target := targets.resolve(name)).arch == found.arch
        and set(found.features).issuperset(target.cpu_flags)
    ]
    boards = [target for target in usable if target.level and _has_libc(found, target)]
    for board in boards:
        if any(word in found.model for word in board.models):
            return board
    same = [board for board in boards if list(dict(board.cores)) == list(found.cores)]
    if same and not any(board.gpu_arch for board in same):
        return same[0]
    levels = targets.by_preference([target for target in usable if not target.level])
    if not levels:
        return None
    extras = [name for name, flag in levels[0].optional if flag in found.features]
    return targets.resolve("+".join([levels[0].name, *extras]))


def as_board(name: str, found: Machine, target: Target) -> str:
    """A table to compile by: `target`, with what is known of the very machine."""
    lines = [f"# {found.model or 'A machine'}, {found.system}, as `edgec targets probe` found it."]
    lines += ["", f"[{name}]", f'level = "{target.name}"']
    kinds = [kind for kind in found.cores if kind in _PARTS.values()]
    if kinds and kinds[0] != target.mcpu:
        lines.append(f'mcpu = "{kinds[0]}"')
        if target.qemu_most:
            lines.append(f'qemu_cpu = "{target.qemu_most}"')
    for key in ("l1_bytes", "l2_bytes", "l3_bytes"):
        value = getattr(found, key)
        if value and value != getattr(target, key):
            lines.append(f"{key} = {value:_}")
    if not _has_libc(found, target) or found.libc == "musl":
        lines.append(f'libc = "{found.libc}"')
    if found.cores:
        cores = ", ".join(f'"{kind}" = {count}' for kind, count in found.cores.items())
        lines.append(f"cores = {{ {cores} }}")
    if found.memory_mib:
        lines.append(f"ram_mib = [{found.memory_mib}]")
    if found.gpu_arch:
        lines += [f'gpu = "{found.gpu}"', f'gpu_arch = "{found.gpu_arch}"']
    return "\n".join(lines) + "\n"


def name_of(found: Machine) -> str:
    """The machine's model as a target's name."""
    words = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(\w+\)", "", found.model.lower())).strip("-")
    name = words[:40].strip("-") or found.arch or "machine"
    return f"{name}-board" if name in targets.names() else name


def _has_libc(found: Machine, target: Target) -> bool:
    """Whether a library linked for `target` loads there; yes where the machine does not tell."""
    here, wanted = found.libc.split(), target.libc.split()
    if len(here) != 2 or len(wanted) != 2:
        return not here or here == wanted
    return here[0] == wanted[0] and _version(here[1]) >= _version(wanted[1])


def _version(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]


def _libc(text: str) -> str:
    if "musl" in text:
        return "musl"
    version = re.search(r"(?i)(?:glibc|gnu libc|glibc\)?)\D*?(\d+\.\d+)", text)
    return f"glibc {version[1]}" if version else ""


def _processors(cpuinfo: str) -> list[dict[str, str]]:
    """The table of each processor; on some systems the last one has what is true of all."""
    blocks = [
        {
            key.strip(): value.strip()
            for key, colon, value in (line.partition(":") for line in block.splitlines())
            if colon
        }
        for block in re.split(r"\n\s*\n", cpuinfo)
    ]
    of_all = {k: v for block in blocks if "processor" not in block for k, v in block.items()}
    return [of_all | block for block in blocks if "processor" in block]


def _kind(block: dict[str, str]) -> str:
    """The kind of core: LLVM's name where it is an Arm one that is known."""
    part = _number(block.get("CPU part", ""))
    if part is None:
        slug = re.sub(r"[^a-z0-9]+", "-", block.get("model name", "core").lower())
        return slug.strip("-")
    implementer = _number(block.get("CPU implementer", "")) or 0
    return _PARTS.get((implementer, part), f"part-{implementer:02x}-{part:03x}")


def _number(text: str) -> int | None:
    return int(text, 16) if re.fullmatch(r"0x[0-9a-fA-F]+", text) else None


def _either(block: dict[str, str], *keys: str) -> str:
    return next((block[key] for key in keys if key in block), "")


def _speed(texts: dict[str, str], cpu: int) -> int:
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        text = texts.get(f"{CPU}/cpu{cpu}/{name}", "")
        if text.isdecimal():
            return int(text)
    return 0


def _caches(texts: dict[str, str], cpu: int) -> dict[int, int]:
    """Bytes by level; of L1 and L2 the share of one core."""
    found: dict[int, int] = {}
    for index in range(4):
        at = f"{CPU}/cpu{cpu}/cache/index{index}"
        size = re.fullmatch(r"(\d+)([KM]?)", texts.get(f"{at}/size", ""))
        level = texts.get(f"{at}/level", "")
        if not size or not level.isdecimal() or texts.get(f"{at}/type") == "Instruction":
            continue
        nbytes = int(size[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20}[size[2]]
        shared = _count_cpus(texts.get(f"{at}/shared_cpu_list", "")) if level in "12" else 1
        found[int(level)] = nbytes // max(1, shared)
    return found


def _count_cpus(text: str) -> int:
    """How many CPUs a list such as "0-3,8" names."""
    return sum(
        int(last or first) - int(first) + 1 for first, last in re.findall(r"(\d+)(?:-(\d+))?", text)
    )
