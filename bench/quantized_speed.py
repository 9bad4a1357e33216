"""Quantized models: edgec in integers beside its peers in integers and in floats, each at its best.

    python bench/quantized_speed.py [NAME ...] [--quick] [--output FILE.md]

Each model is quantized by `edgec quantize` with random samples (what is quantized does not depend
on them, nor does the time it takes). Peers run that file, the float model, and each what its own
quantizer makes of it with the same samples: ONNX Runtime's static one, NNCF for OpenVINO; all by
the protocol of `edgec bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import quantize_peers
from corpus import SETS, models
from speedtable import geometric_mean

from edgec.bench import bench, machine
from edgec.data import open_data
from edgec.errors import EdgecError
from edgec.report import duration
from edgec.runtime.load import load

SAMPLES = 8
CALLS, QUICK_CALLS = 200, 60
HEADER = (
    "model",
    "edgec int8",
    "best peer",
    "edgec / it",
    "best peer in int8",
    "edgec / it",
    "A/A",
)


@dataclass(frozen=True)
class Time:
    """An engine's median milliseconds on a model in "float32" or "int8", and edgec's over it."""

    engine: str
    kind: str
    ms: float
    ratio: float

    def __str__(self) -> str:
        return f"{duration(self.ms * 1e-3)} ({self.engine}, {self.kind})"


@dataclass(frozen=True)
class Row:
    """edgec's median milliseconds and threads, its peers, and the A/A ratio furthest from 1."""

    name: str
    ms: float
    threads: int
    peers: tuple[Time, ...]
    aa: float

    def best(self, *kinds: str) -> Time:
        """The peer that edgec gains least on."""
        return max((t for t in self.peers if t.kind in kinds), key=lambda time: time.ratio)

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        every, integer = self.best("float32", "int8"), self.best("int8")
        return [
            self.name,
            f"{duration(self.ms * 1e-3)} ({self.threads})",
            str(every),
            f"**{every.ratio:.2f}**",
            str(integer),
            f"**{integer.ratio:.2f}**",
            f"{self.aa:.2f}",
        ]


def edgec(*words: object) -> None:
    """The command line in a process of its own. `EdgecError` where it fails."""
    command = [sys.executable, "-m", "edgec.cli", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = json.loads(done.stdout.splitlines()[-1])
    if last["event"] != "result":
        raise EdgecError(last["what"], where=last["where"])


def by_its_own(
    engine: str, model: Path, samples: list[dict[str, np.ndarray]], output: Path
) -> bool:
    """Whether the quantizer that comes with an engine could quantize the model."""
    name = {"onnxruntime": "onnxruntime", "openvino": "nncf"}[engine]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            quantize_peers.QUANTIZERS[name](model, samples, output)
    except Exception as error:
        print(f"{model.stem}: {name}'s quantizer: {error}", file=sys.stderr)
        return False
    return True


def measured(name: str, model: Path, calls: int) -> Row:
    """All engines on one model."""
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        at = Path(folder)
        edgec("compile", model, "-o", at / "float.edgec")
        with load(at / "float.edgec") as module:
            specs = list(module.inputs)
        samples = list(open_data(specs, ["random"], count=SAMPLES))
        np.savez(at / "samples.npz", **{n: np.stack([s[n] for s in samples]) for n in samples[0]})
        quantized, artifact = at / "int8.onnx", at / "int8.edgec"
        shapes = [f"--shape={s.name}={'x'.join(map(str, s.shape))}" for s in specs if s.shape]
        edgec("quantize", model, "--calib", at / "samples.npz", "-o", quantized, *shapes)
        edgec("compile", quantized, "-o", artifact, "-O3")
        files = [("int8", quantized, PEERS), ("float32", model, PEERS)]
        for engine in PEERS:
            if by_its_own(engine, model, samples, at / f"{engine}.onnx"):
                files.append(("int8", at / f"{engine}.onnx", (engine,)))
        peers: list[Time] = []
        worst, mine = 1.0, None
        for kind, file, against in files:
            try:
                found = bench(artifact, file, against=against, calls=calls, levels=[2, 3])
            except EdgecError as error:
                if file.stem not in PEERS:
                    raise
                print(f"{name}, as {file.stem}'s quantizer makes it: {error}", file=sys.stderr)
                continue
            report = found.to_dict()
            mine, *others = report["engines"]
            for each in others:
                ratio = 1 / each["ratio"]["value"]
                peers.append(Time(each["engine"], kind, each["median_ms"], ratio))
            worst = max(worst, report["aa"]["value"], key=lambda aa: abs(aa - 1))
        assert mine is not None
        return Row(name, mine["median_ms"], mine["threads"], tuple(peers), worst)


PEERS = ("onnxruntime", "openvino")


def markdown(rows: list[Row]) -> str:
    """A table, with the geometric means of both ratios in its last line."""
    cells: list[list[Any]] = [list(HEADER), ["---"] * len(HEADER), *(row.cells for row in rows)]
    means = [
        geometric_mean([row.best(*kinds).ratio for row in rows])
        for kinds in (("float32", "int8"), ("int8",))
    ]
    cells.append(["geometric mean", "", "", f"**{means[0]:.2f}**", "", f"**{means[1]:.2f}**", ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def main() -> None:
    """Measure the models named, or those of the large and small sets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="fewer calls: for a first look")
    parser.add_argument("--output", type=Path, help="write the tables here as well")
    args = parser.parse_args()
    sections, failed = [], []
    for group in SETS[:2]:
        files = models(args.names or group.names)
        rows = []
        for name in (name for name in group.names if name in files):
            try:
                rows.append(measured(name, files[name], QUICK_CALLS if args.quick else CALLS))
            except EdgecError as error:
                failed.append(f"{name}: {error.what}")
                continue
            print(" | ".join(rows[-1].cells), flush=True)
        if rows:
            sections.append(f"**{group.title}**\n\n{markdown(rows)}")
    about = ", ".join([*machine().values(), "ONNX Runtime and OpenVINO as installed"])
    text = "\n\n".join([*sections, f"Measured on {about}.\n"])
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    print(f"\n{text}")
    if failed:
        sys.exit("not measured:\n  " + "\n  ".join(failed))


if __name__ == "__main__":
    main()
