"""Instructions of one inference on Arm, under QEMU: edgec beside ncnn and ONNX Runtime, one thread.

    python bench/arm_instructions.py [NAME ...] [--target rpi4] [--output FILE.md]

What an engine executes from one run of a model to the next is an inference: instructions, and bytes
loaded and stored, by QEMU's plugin interface (bench/arm/count.c). ncnn runs what pnnx makes of the
ONNX file, in fp32; what Python and an empty network cost is taken off. ONNX Runtime runs the file,
called from C. A ratio is edgec's instructions over the fewer of theirs; below 1,
edgec needs fewer.

Such counts show neither caches nor latencies nor how many instructions a core begins at once: 0.9
times the instructions is not 0.9 times the time.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from arm.peer import RUNS
from arm.root import REPO, Root, root
from corpus import models

from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.emit.artifact import linkable
from edgec.emit.linkable import link_runner
from edgec.emit.toolchain import Toolchain
from edgec.errors import EdgecError
from edgec.options import Options
from edgec.targets import resolve

PEER = Path(__file__).parent / "arm" / "peer.py"
LIMIT_S = 900.0
HEADER = ("model", "edgec", "edgec -O3", "ncnn", "ONNX Runtime", "ratio", "MB loaded", "MB stored")


@dataclass(frozen=True)
class Counts:
    """Of one inference."""

    instructions: int
    loaded: int
    stored: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.instructions - other.instructions,
            self.loaded - other.loaded,
            self.stored - other.stored,
        )

    def __floordiv__(self, runs: int) -> Counts:
        return Counts(self.instructions // runs, self.loaded // runs, self.stored // runs)


class Uncountable(Exception):
    """An engine does not run the model; the text says why."""


def count(command: list[str]) -> list[Counts]:
    """What a program under QEMU's plugin has executed at each mark, and at its end."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=REPO)
    lines = [line for line in done.stderr.splitlines() if line.startswith("counted ")]
    if done.returncode or not lines:
        words = [line for line in done.stderr.strip().splitlines() if line not in lines]
        raise Uncountable((words[-1] if words else f"status {done.returncode}")[:120])
    return [Counts(*map(int, line.split()[1:])) for line in lines]


def of_edgec(system: Root, model: Path, target: str, level: int, folder: Path) -> Counts:
    artifact = folder / f"{model.stem}.O{level}.edgec"
    compile_model(model, artifact, Options(targets=(target,), level=level))
    linked, machine = linkable(artifact)
    runner = folder / "edgec-run"
    runner.write_bytes(link_runner(linked, Toolchain.of(machine, Cache.default().path)))
    runner.chmod(0o700)
    words = ["qemu-aarch64", "-cpu", machine.qemu_cpu, "-plugin", str(system.plugin), str(runner)]
    words += [str(artifact), "--threads", "1", "--bench"]
    return count([*words, "2"])[-1] - count([*words, "1"])[-1]


def of_onnxruntime(system: Root, model: Path, cpu: str) -> Counts:
    words = [*system.python(cpu), str(PEER), "onnxruntime", str(model), str(system.burst)]
    *_, before, after, _ = count(words)
    return (after - before) // RUNS


def of_ncnn(system: Root, model: Path, cpu: str, folder: Path) -> Counts:
    import onnx

    copy = folder / model.name
    copy.write_bytes(model.read_bytes())
    graph = onnx.load(model).graph
    filled = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in filled]
    if any(value.type.tensor_type.elem_type != 1 for value in inputs):
        raise Uncountable("its inputs are not of floats")
    shapes = [
        "x".join(str(d.dim_value or 1) for d in value.type.tensor_type.shape.dim)
        for value in inputs
    ]
    given = ",".join(f"[{shape.replace('x', ',')}]" for shape in shapes)
    done = subprocess.run(
        [system.pnnx, copy, f"inputshape={given}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    param = copy.with_suffix(".ncnn.param")
    if done.returncode or not param.exists():
        raise Uncountable("pnnx does not convert it")
    words = [*system.python(cpu), str(PEER), "ncnn", str(param)]
    words += [str(copy.with_suffix(".ncnn.bin")), ",".join(shapes)]
    _, empty_before, empty_after, _, before, after, _ = count(words)
    return (after - before - (empty_after - empty_before)) // RUNS


def row(system: Root, name: str, model: Path, target: str) -> tuple[tuple[str, ...], float | None]:
    """A model's line of the table, and its ratio."""
    cpu = resolve(target).qemu_cpu
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as folder:
        place = Path(folder)
        own = [of_edgec(system, model, target, level, place) for level in (2, 3)]
        theirs: list[Counts | None] = []
        for engine, measured in (
            ("ncnn", lambda: of_ncnn(system, model, cpu, place)),
            ("ONNX Runtime", lambda: of_onnxruntime(system, model, cpu)),
        ):
            try:
                theirs.append(measured())
            except (Uncountable, subprocess.TimeoutExpired) as why:
                print(f"{name}: {engine}: {why}", file=sys.stderr)
                theirs.append(None)
    best = min(own, key=lambda counts: counts.instructions)
    fewest = min((c.instructions for c in theirs if c), default=None)
    ratio = best.instructions / fewest if fewest else None
    everyone = [best, *theirs]
    cells = [name, *(_millions(counts) for counts in (*own, *theirs))]
    cells.append(f"{ratio:.2f}" if ratio else "")
    cells.append(" / ".join(f"{c.loaded / 1e6:.1f}" if c else "-" for c in everyone))
    cells.append(" / ".join(f"{c.stored / 1e6:.1f}" if c else "-" for c in everyone))
    return tuple(cells), ratio


def _millions(counts: Counts | None) -> str:
    return f"{counts.instructions / 1e6:.2f} M" if counts else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="models of the zoo; by default all")
    parser.add_argument("--target", default="rpi4", help="an aarch64 one")
    parser.add_argument("--output", type=Path, help="write the table here")
    args = parser.parse_args()
    system = root()
    rows, ratios = [], []
    for name, model in models(args.names).items():
        try:
            cells, ratio = row(system, name, model, args.target)
        except EdgecError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print("  ".join(cells), flush=True)
        rows.append(cells)
        ratios += [ratio] if ratio else []
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        rows.append((f"geometric mean of {len(ratios)}", "", "", "", "", f"{mean:.2f}", "", ""))
        print(rows[-1])
    lines = [" | ".join(cells) for cells in (HEADER, ("---",) * len(HEADER), *rows)]
    text = "".join(f"| {line} |\n" for line in lines)
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
