"""The README's table: every model compiled from scratch, measured, and held against its bounds.

    python bench/zoo.py [NAME ...] [--quick] [--output FILE.md]

Compile time is that of the whole command with an empty cache, but for the C library that zig builds
once per machine. The artifact's bound is its weights, 25 KiB per distinct kernel and 200 KiB. The
ratio is the time of ONNX Runtime over that of edgec, by the protocol of `edgec bench`: above 1,
edgec is faster. `rss` is what the exported C program holds after 10 runs beyond an empty one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from corpus import models

from edgec.bench import bench, machine
from edgec.cache import Cache
from edgec.emit.toolchain import Toolchain
from edgec.errors import EdgecError
from edgec.report import duration, size
from edgec.targets import host

SIZES = {"silero_vad_16k_op15": ("--shape", "input=1x576", "--shape", "state=2x1x128")}
HEADER = ("model", "compile", "again", "arena / bound", "artifact / bound", "rss", "median", "ORT")

_RSS_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef MODEL
#include MODEL_H
#endif
int main(void) {
#ifdef MODEL
  edgec_instance *instance;
  if (edgec_create(MODEL(), NULL, &instance)) return 1;
  const edgec_model *model = MODEL();
  const void *inputs[16];
  void *outputs[16];
  for (uint32_t i = 0; i < model->input_count; i++)
    inputs[i] = calloc(1, edgec_input(instance, i)->bytes);
  for (uint32_t i = 0; i < model->output_count; i++)
    outputs[i] = calloc(1, edgec_output(instance, i)->bytes);
  for (int run = 0; run < 10; run++)
    if (edgec_run(instance, inputs, outputs, NULL)) return 1;
#endif
  char line[256];
  FILE *status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status))
    if (!strncmp(line, "VmRSS:", 6)) puts(line + 6);
  return 0;
}
"""


@dataclass(frozen=True)
class Measured:
    """One row of the table."""

    name: str
    cells: tuple[str, ...]
    within_bounds: bool


def measure(name: str, model: Path, calls: int) -> Measured:
    """Compile, weigh and time one model."""
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as folder:
        artifact = Path(folder) / f"{name}.edgec"
        cold, facts = _compile(name, model, artifact, Path(folder) / "cache")
        warm, _ = _compile(name, model, artifact, Path(folder) / "cache")
        variant = facts["variants"][0]
        bound = variant["weights_bytes"] + 25 * 1024 * variant["kernels"] + 200 * 1024
        arena, arena_bound = variant["arena_bytes"], variant["arena_bound_bytes"]
        report = bench(artifact, model, against=["onnxruntime"], calls=calls)
        ratio = report.ratio("onnxruntime")
        doubt = "" if report.believed else f" (A/A {report.aa.value:.2f})"
        cells = (
            name,
            f"{cold:.1f} s",
            f"{warm:.2f} s",
            f"{size(arena)} / {size(arena_bound)}",
            f"{size(artifact.stat().st_size)} / {size(bound)}",
            size(_resident(artifact, name, Path(folder))),
            duration(report.base.times.median),
            f"{ratio.value:.2f} ({ratio.p10:.2f} .. {ratio.p90:.2f}){doubt}",
        )
        fits = artifact.stat().st_size <= bound
        return Measured(name, cells, fits and arena <= max(1.1 * arena_bound, arena_bound + 4096))


def _compile(
    name: str, model: Path, artifact: Path, cache: Path
) -> tuple[float, dict[str, object]]:
    """Seconds of the whole command, and its result."""
    zig = Cache.default().folder("zig")
    cache.mkdir(exist_ok=True)
    if not (cache / "zig").exists():
        (cache / "zig").symlink_to(zig, target_is_directory=True)
    command = [sys.executable, "-m", "edgec.cli", "compile", str(model), "-o", str(artifact)]
    command += SIZES.get(name, ())
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--json"],
        env=os.environ | {"EDGEC_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    result = json.loads(done.stdout.splitlines()[-1])
    if result["event"] != "result":
        raise EdgecError(result["what"], where=result.get("where", ""))
    return seconds, result


def _resident(artifact: Path, name: str, folder: Path) -> int:
    """Bytes resident in an exported C program after 10 runs, beyond those of an empty one."""
    exported = folder / "export"
    subprocess.run(
        [sys.executable, "-m", "edgec.cli", "export", str(artifact), str(exported)],
        check=True,
        capture_output=True,
    )
    symbol = name
    toolchain = Toolchain.of(host(), Cache.default().path)
    library = (exported / "lib" / f"lib{symbol}.so").resolve()
    program = folder / "rss"
    object_code = toolchain.compile(
        _RSS_C,
        includes=[exported / "include"],
        defines={"MODEL": f"edgec_model_{symbol}", "MODEL_H": f'"{symbol}.h"'},
    )
    empty = folder / "empty"
    empty.write_bytes(toolchain.executable([toolchain.compile(_RSS_C)], static=False))
    program.write_bytes(toolchain.executable([object_code, library.read_bytes()], static=False))
    kilobytes = []
    for each in (program, empty):
        each.chmod(0o700)
        done = subprocess.run(
            [str(each)],
            env=os.environ | {"LD_LIBRARY_PATH": str(library.parent)},
            capture_output=True,
            text=True,
            check=True,
        )
        kilobytes.append(int(done.stdout.split()[0]))
    return 1024 * (kilobytes[0] - kilobytes[1])


def markdown(rows: list[Measured]) -> str:
    """The rows as a table, with the machine they were measured on."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(row.cells) + " |" for row in rows]
    about = ", ".join(f"{value}" for value in machine().values())
    return "\n".join([*lines, "", f"Measured on {about}.", ""])


def main() -> None:
    """Measure the models named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--quick", action="store_true", help="fewer calls: for a first look")
    parser.add_argument("--output", type=Path, help="write the table here as well")
    args = parser.parse_args()
    rows = []
    for name, path in models(args.names).items():
        try:
            rows.append(measure(name, path, calls=60 if args.quick else 200))
        except EdgecError as error:
            rows.append(Measured(name, (name, f"fails: {error.what}", *[""] * 6), False))
        print(" | ".join(rows[-1].cells), flush=True)
    text = markdown(rows)
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    outside = [row.name for row in rows if not row.within_bounds]
    print(text)
    if outside:
        sys.exit(f"outside their bounds: {', '.join(outside)}")


if __name__ == "__main__":
    main()
