"""Instructions of one inference on Arm, under QEMU: edgec beside ncnn and ONNX Runtime, one thread.

    python bench/arm_instructions.py [NAME ...] [--int8] [--target rpi4] [--output FILE.md]

What an engine executes from one run of a model to the next is an inference: instructions, and bytes
loaded and stored, by QEMU's plugin interface (bench/arm/count.c). ncnn runs what pnnx makes of the
ONNX file, in fp32; what Python and an empty network cost is taken off. ONNX Runtime runs the file,
called from C. A ratio is edgec's instructions over the fewer of theirs; below 1,
edgec needs fewer.

With --int8, edgec runs what `edgec quantize` makes of the model, and ONNX Runtime what its own
quantizer makes with the same samples: QDQ of int8 weights by channel, activations of uint8 or of
int8, whichever takes it fewer. ncnn's int8 needs a table by a tool that its package lacks.

What peers take is kept in edgec's cache, by the model, the processor and their versions.

Such counts show neither caches nor latencies nor how many instructions a core begins at once: 0.9
times the instructions is not 0.9 times the time.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import quantize_peers
from arm.peer import RUNS
from arm.root import REPO, Root, root
from corpus import models

from edgec.cache import Cache, key_of
from edgec.compiler import compile_model
from edgec.emit.artifact import linkable
from edgec.emit.linkable import link_runner
from edgec.emit.toolchain import Toolchain
from edgec.errors import EdgecError
from edgec.options import Options
from edgec.targets import resolve

PEER = Path(__file__).parent / "arm" / "peer.py"
LIMIT_S = 900.0
SAMPLES = 4
HEADER = ("model", "edgec", "edgec -O3", "ncnn", "ONNX Runtime", "ratio", "MB loaded", "MB stored")
INT8_HEADER = (
    "model",
    "edgec",
    "ONNX Runtime uint8",
    "ONNX Runtime int8",
    "ratio",
    "MB loaded",
    "MB stored",
)


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


def kept(measure: Callable[..., Counts]) -> Callable[..., Counts]:
    """`measure(system, model, cpu, ...)` of a peer, done once."""

    @functools.wraps(measure)
    def counts(system: Root, model: Path, cpu: str, *more: Path) -> Counts:
        wheels = sorted(wheel.name for wheel in (system.folder / "wheels").glob("*.whl"))
        key = key_of(measure.__name__, model.read_bytes(), cpu, wheels, PEER.read_bytes())
        stored = Cache.default().get("arm-counts", key)
        if stored is not None:
            return Counts(**json.loads(stored))
        made = measure(system, model, cpu, *more)
        Cache.default().put("arm-counts", key, json.dumps(asdict(made)).encode())
        return made

    return counts


@kept
def of_onnxruntime(system: Root, model: Path, cpu: str) -> Counts:
    words = [*system.python(cpu), str(PEER), "onnxruntime", str(model), str(system.burst)]
    *_, before, after, _ = count(words)
    return (after - before) // RUNS


@kept
def of_ncnn(system: Root, model: Path, cpu: str, folder: Path) -> Counts:
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
        theirs = [
            attempted(f"{name}: ncnn", lambda: of_ncnn(system, model, cpu, place)),
            attempted(f"{name}: ONNX Runtime", lambda: of_onnxruntime(system, model, cpu)),
        ]
    return cells(name, own, theirs)


def int8_row(
    system: Root, name: str, model: Path, target: str
) -> tuple[tuple[str, ...], float | None]:
    """The same of the model quantized."""
    cpu = resolve(target).qemu_cpu
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as folder:
        place = Path(folder)
        feeds = samples(model)
        quantized = quantized_by_edgec(model, feeds, place)
        own = [of_edgec(system, quantized, target, 2, place)]

        def of_peer(activations: str) -> Counts:
            theirs = place / f"{activations}.onnx"
            quantize_peers.by_onnxruntime(model, feeds, theirs, activations)
            return of_onnxruntime(system, theirs, cpu)

        theirs = [
            attempted(f"{name}: ONNX Runtime, {kind}", lambda kind=kind: of_peer(kind))
            for kind in ("QUInt8", "QInt8")
        ]
    return cells(name, own, theirs)


def samples(model: Path) -> list[dict[str, np.ndarray]]:
    """Random values for the model's inputs; whole numbers are 1."""
    graph, numbers = onnx.load(model).graph, np.random.default_rng(0)
    filled = {tensor.name for tensor in graph.initializer}
    feeds: list[dict[str, np.ndarray]] = []
    for _ in range(SAMPLES):
        feeds.append({})
        for value in (each for each in graph.input if each.name not in filled):
            kind = value.type.tensor_type
            shape = [extent.dim_value or 1 for extent in kind.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            floats = numbers.random(shape, np.float32)
            feeds[-1][value.name] = floats if dtype.kind == "f" else np.ones(shape, dtype)
    return feeds


def quantized_by_edgec(model: Path, feeds: list[dict[str, np.ndarray]], folder: Path) -> Path:
    data, made = folder / "samples.npz", folder / f"{model.stem}.int8.onnx"
    np.savez(data, **{name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]})
    shapes = [f"--shape={n}={'x'.join(map(str, a.shape))}" for n, a in feeds[0].items()]
    words = ["quantize", model, "--calib", data, "-o", made, *shapes]
    command = [sys.executable, "-m", "edgec.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise EdgecError(done.stderr.strip().splitlines()[-1])
    return made


def attempted(who: str, measured: Callable[[], Counts]) -> Counts | None:
    """What was counted; None where the engine does not run the model."""
    try:
        return measured()
    except (Uncountable, subprocess.TimeoutExpired) as why:
        print(f"{who}: {why}", file=sys.stderr)
        return None


def cells(
    name: str, own: list[Counts], theirs: list[Counts | None]
) -> tuple[tuple[str, ...], float | None]:
    best = min(own, key=lambda counts: counts.instructions)
    fewest = min((c.instructions for c in theirs if c), default=None)
    ratio = best.instructions / fewest if fewest else None
    everyone = [best, *theirs]
    line = [name, *(_millions(counts) for counts in (*own, *theirs))]
    line.append(f"{ratio:.2f}" if ratio else "")
    line.append(" / ".join(f"{c.loaded / 1e6:.1f}" if c else "-" for c in everyone))
    line.append(" / ".join(f"{c.stored / 1e6:.1f}" if c else "-" for c in everyone))
    return tuple(line), ratio


def _millions(counts: Counts | None) -> str:
    return f"{counts.instructions / 1e6:.2f} M" if counts else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="models of the zoo; by default all")
    parser.add_argument("--int8", action="store_true", help="the models quantized")
    parser.add_argument("--target", default="rpi4", help="an aarch64 one")
    parser.add_argument("--output", type=Path, help="write the table here")
    args = parser.parse_args()
    system = root()
    header = INT8_HEADER if args.int8 else HEADER
    rows, ratios = [], []
    for name, model in models(args.names).items():
        try:
            line, ratio = (int8_row if args.int8 else row)(system, name, model, args.target)
        except EdgecError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print("  ".join(line), flush=True)
        rows.append(line)
        ratios += [ratio] if ratio else []
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        blanks = [""] * (len(header) - 4)
        rows.append((f"geometric mean of {len(ratios)}", *blanks, f"{mean:.2f}", "", ""))
        print(rows[-1])
    lines = [" | ".join(line) for line in (header, ("---",) * len(header), *rows)]
    text = "".join(f"| {line} |\n" for line in lines)
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
