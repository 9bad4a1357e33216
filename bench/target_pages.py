"""docs/targets/*.md: what was compiled for each target, and how far it was proved, and where.

    python bench/target_pages.py [--models NAME,...] [--targets NAME,...] [--seconds N]

compiles models of the corpus for targets, notes what came of it in docs/targets/results.json, and
writes the pages from all that stands there. Rows of another edgec version are replaced as they are
made again, and say so until then. Without --models nothing is compiled: only the pages are written.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from corpus import ROOT, models

from edgec import __version__, targets
from edgec.compiler import compile_model
from edgec.errors import EdgecError
from edgec.options import Options
from edgec.report import size
from edgec.targets import Target

FOLDER = ROOT / "docs" / "targets"
RESULTS = FOLDER / "results.json"
SHAPES = {"silero_vad_16k_op15": {"input": (1, 576), "state": (2, 1, 128)}}
FLOAT_TARGETS = ("rpi4", "rpi5", "armv7", "jetson", "x86-64-v2", "x86-64-v3", "x86-64-v4")

Row = dict[str, Any]


def compile_one(name: str, model: Path, wanted: list[str]) -> list[Row]:
    """Rows of a model: one per target, together where that works, else each alone."""
    with tempfile.TemporaryDirectory(prefix="edgec-pages-") as folder:
        path = Path(folder) / "model.edgec"
        options = Options(targets=tuple(wanted), shapes=SHAPES.get(name, {}))
        try:
            made = compile_model(model, path, options).manifest["variants"]
        except EdgecError as error:
            if len(wanted) > 1:
                return [row for each in wanted for row in compile_one(name, model, [each])]
            target = targets.resolve(wanted[0])
            return [{"model": name, "target": target.name, "failed": error.what.splitlines()[0]}]
    return [
        {
            "model": name,
            "target": variant["target"]["name"],
            "verified": variant["verified"],
            "where": _where(targets.from_facts(variant["target"]), variant["verified"]),
            "kernels": len(variant["kernels"]),
            "weights_bytes": variant["weights_bytes"],
            "arena_bytes": variant["arena_bytes"],
        }
        for variant in made
    ]


def _where(target: Target, verified: str) -> str:
    """The machine that the proof was run on."""
    if verified == "emulated":
        said = subprocess.run([target.qemu, "--version"], capture_output=True, text=True).stdout
        version = said.split("version ")[1].split()[0]
        return f"{target.qemu} {version}, -cpu {target.qemu_cpu}"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def page(target: Target, rows: list[Row]) -> str:
    """A target's page."""
    lines = [f"# {target.name}", "", f"{target.summary}.", "", "| | |", "|---|---|"]
    cores = ", ".join(f"{count} {core}" for core, count in target.cores)
    facts = {
        "builds on": target.level,
        "cores": cores,
        "compiled for": " ".join([target.mcpu, *target.features]),
        "needs": " ".join(target.cpu_flags),
        "C library": target.libc if target.libc == "musl" else f"{target.libc} or newer",
        "GPU": f"{target.gpu}, {target.gpu_arch} ([cuda.md](../cuda.md))" if target.gpu else "",
        "JetPack": f"{target.jetpack}, CUDA {target.cuda}" if target.jetpack else "",
    }
    lines += [f"| {key} | {value} |" for key, value in facts.items() if value]
    lines += ["", "## What was compiled and run", ""]
    if not rows:
        return "\n".join([*lines, "Nothing yet.", ""])
    lines += ["| model | kernels | weights | arena | verified | where |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['model']} | | | | no: {row['failed']} | |")
            continue
        cells = [row["model"], str(row["kernels"]), size(row["weights_bytes"])]
        cells += [size(row["arena_bytes"]), row["verified"], row["where"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_legend(target, rows), ""])


def _legend(target: Target, rows: list[Row]) -> list[str]:
    means = {
        "device": "`device`: run on a processor of this kind, compared with ONNX Runtime.",
        "emulated": "`emulated`: its golden data were reproduced by a static program under QEMU.",
        "host-twin": "`host-twin`: not run; the same graph, compiled for the machine named, was.",
    }
    if target.gpu_arch:
        means["host-twin"] = (
            "`host-twin`: its code for the GPU was not run; the same CUDA C, compiled as C++, was, "
            "on the machine named ([cuda.md](../cuda.md))."
        )
        means["emulated"] += (
            " That is its code for the CPU alone, of an edgec that made none for this GPU."
        )
    lines = [text for key, text in means.items() if any(row.get("verified") == key for row in rows)]
    if target.gpu_arch:
        lines.append("Nothing was run on its GPU; `make test-gpu` was never run on one.")
    if target.level:
        lines.append("No module was run on this board itself, and no time was measured on it.")
    if target.arch == "aarch64":
        lines.append("Instructions under QEMU: [arm.md](../arm.md).")
    versions = sorted({row["edgec"] for row in rows})
    return ["\n".join(lines), "", f"By edgec {', '.join(versions)}; `make target-pages`."]


def index(rows: list[Row]) -> str:
    """The page that lists the others."""
    lines = ["# Targets: what was compiled, run and verified", ""]
    lines += ["| target | models compiled | verified | failed |", "|---|---|---|---|"]
    for name in _names():
        mine = [row for row in rows if row["target"] == name]
        kinds = [row["verified"] for row in mine if "verified" in row]
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        failed = len(mine) - len(kinds)
        lines.append(f"| [{name}]({name}.md) | {len(kinds)} | {counted} | {failed or ''} |")
    return "\n".join(
        [*lines, "", "Written by `make target-pages`; see [targets.md](../targets.md).", ""]
    )


def _names() -> list[str]:
    return [n for n in targets.names() if n != "host" and n not in targets.aliases()]


def write_pages(rows: list[Row]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in _names():
        mine = [row for row in rows if row["target"] == name]
        (FOLDER / f"{name}.md").write_text(page(targets.resolve(name), mine), encoding="utf-8")
    (FOLDER / "README.md").write_text(index(rows), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="", help="of the corpus, or `all`")
    parser.add_argument("--targets", default=",".join(FLOAT_TARGETS))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more after")
    args = parser.parse_args()
    rows: list[Row] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    begun = time.monotonic()
    chosen = models([] if args.models == "all" else args.models.split(",")) if args.models else {}
    for name, model in chosen.items():
        if time.monotonic() - begun > args.seconds:
            break
        made = compile_one(name, model, args.targets.split(","))
        print(name, *(row.get("verified", row.get("failed")) for row in made), flush=True)
        new = {(row["model"], row["target"]) for row in made}
        rows = [row for row in rows if (row["model"], row["target"]) not in new]
        rows = sorted([*rows, *({**row, "edgec": __version__} for row in made)], key=_order)
        FOLDER.mkdir(exist_ok=True)
        text = ",\n".join(json.dumps(row, sort_keys=True) for row in rows)
        RESULTS.write_text(f"[\n{text}\n]\n", encoding="utf-8")
    write_pages(rows)
    return 0


def _order(row: Row) -> tuple[str, str]:
    return row["target"], row["model"]


if __name__ == "__main__":
    sys.exit(main())
