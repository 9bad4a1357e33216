"""The README's tables of `edgec optimize` beside onnxsim, onnxslim and ONNX Runtime's own rewrites.

    python bench/optimize.py [NAME ...] [--quick] [--output FILE.md]

Nodes are counted once functions are inlined, those of subgraphs too, Constants not. Times in
process are those of edgec's passes and of the whole of the other two, models already read; commands
are timed from start to end. Of times, the fastest of several runs. The last column is the time that
ONNX Runtime takes for edgec's file over that for the faster of the two other tools' files.

Ends with an error that names the bounds which a model breaks; see `broken`.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from corpus import models
from optimizers import (
    TOOLS,
    command,
    in_process,
    node_count,
    runtime_extended,
    seconds_of,
)
from runtimes import Comparison, compare, sample_of

from edgec.bench import machine
from edgec.optimizer import Pipeline, optimize_model
from edgec.report import duration, size

LEVELS = (2, 3)
REPEATS = 5
DIMS = {"silero_vad_16k_op15": {"batch": 1, "sequence": 576}}
"""Sizes of symbolic dimensions, to run a model."""

MOST_NODES = {
    "mlperf_tiny_ad_autoencoder_fp32": 19,
    "mlperf_tiny_ic_resnet8_fp32": 25,
    "mlperf_tiny_kws_fp32": 23,
    "mlperf_tiny_kws_int8_qdq": 68,
    "mlperf_tiny_vww_mobilenet_fp32": 58,
    "silero_vad_16k_op15": 52,
    "ultraface_slim_320": 95,
    "ultraface_slim_320_unsimplified": 106,
}
RATIO = 1.02
COMMAND_S = 0.3
TIMES_ONNXSIM, FROM_NODES = 5, 100

COUNTS = ("model", "source", *(f"edgec -O{n}" for n in LEVELS), "onnxsim", "onnxslim", "ORT ext.")
BYTES = ("model", "source", "edgec", "onnxsim", "onnxslim")
TIMES = ("model", "passes", "onnxsim", "onnxslim")
COMMANDS = ("model", "`edgec optimize`", "`onnxsim`", "`onnxslim`", "run time", "A/A")


@dataclass(frozen=True)
class Measured:
    """One model. Counts, bytes and seconds by who made them; infinite where a tool fails.

    `portable` says whether ONNX Runtime used no operators of its own, which no other could run.
    """

    name: str
    nodes: dict[str, float]
    nbytes: dict[str, float]
    seconds: dict[str, float]
    commands: dict[str, float]
    run: Comparison | None
    portable: bool

    def broken(self) -> list[str]:
        """The bounds that it breaks."""
        nodes, fewest = self.nodes[f"edgec -O{LEVELS[0]}"], _best(self.nodes)
        fewer = self.portable and self.nodes["ORT ext."] < fewest
        limit = MOST_NODES.get(self.name, fewest - 1 if fewer else fewest)
        found = {
            f"{nodes:.0f} nodes, at most {limit:.0f}": nodes > limit,
            "larger file": self.nbytes["edgec"] > RATIO * _best(self.nbytes),
            "passes slower than onnxslim": self.seconds["edgec"] > self.seconds["onnxslim"],
            f"passes slower than {TIMES_ONNXSIM} onnxsim": self.nodes["source"] > FROM_NODES
            and self.seconds["edgec"] > TIMES_ONNXSIM * self.seconds["onnxsim"],
            "slower command": self.commands["edgec"] > _best(self.commands) + COMMAND_S,
            "slower to run": self.run is not None
            and self.run.ratio.value > RATIO + abs(self.run.aa.value - 1),
        }
        return [what for what, is_broken in found.items() if is_broken]


def _best(values: Mapping[str, float]) -> float:
    """The lowest value of the two other tools."""
    return min(values[tool.name] for tool in TOOLS)


def measure(name: str, source: Path, folder: Path, *, quick: bool) -> Measured:
    """Optimise the model with every tool, time them, and run what they made."""
    repeats = 2 if quick else REPEATS
    optimized = {
        level: [optimize_model(source, Pipeline(level=level)) for _ in range(repeats)]
        for level in LEVELS
    }
    default = optimized[LEVELS[0]]
    own = folder / "edgec.onnx"
    default[0].save(own)

    nodes: dict[str, float] = {"source": node_count(onnx.load(source))}
    nodes |= {f"edgec -O{level}": node_count(runs[0].model) for level, runs in optimized.items()}
    extended = runtime_extended(source, folder)
    nodes["ORT ext."] = node_count(extended)
    nbytes: dict[str, float] = {"source": source.stat().st_size, "edgec": own.stat().st_size}
    seconds = {"edgec": min(result.seconds for result in default)}
    files = [own]
    for tool in TOOLS:
        made = in_process(tool, source, repeats)
        if made is None:
            nodes[tool.name] = nbytes[tool.name] = seconds[tool.name] = math.inf
            continue
        model, seconds[tool.name] = made
        files.append(folder / f"{tool.name}.onnx")
        onnx.save(model, files[-1])
        nodes[tool.name], nbytes[tool.name] = node_count(model), files[-1].stat().st_size
    written = folder / "written.onnx"
    taken = seconds_of(
        [
            command("edgec", "optimize", source, "-o", written),
            *(command(tool.name, source, written) for tool in TOOLS),
        ],
        repeats,
    )
    commands = dict(zip(("edgec", *(tool.name for tool in TOOLS)), taken, strict=True))
    run = None
    if len(files) > 1:
        sample = sample_of(source, DIMS.get(name, {}))
        run = compare(files, sample, calls=60 if quick else 200, starts=1 if quick else 3)
    portable = not any(node.domain for node in extended.graph.node)
    return Measured(name, nodes, nbytes, seconds, commands, run, portable)


def markdown(rows: Sequence[Measured]) -> str:
    """The tables, with the machine they were measured on."""
    about = ", ".join(machine().values())
    return "\n\n".join(
        [
            _table(COUNTS, [_cells(row, row.nodes, COUNTS, "{:.0f}".format) for row in rows]),
            _table(BYTES, [_cells(row, row.nbytes, BYTES, size) for row in rows]),
            _table(
                TIMES,
                [
                    _cells(row, {"passes": row.seconds["edgec"], **row.seconds}, TIMES, duration)
                    for row in rows
                ],
            ),
            _table(COMMANDS, [_speed(row) for row in rows]),
            f"Measured on {about}.\n",
        ]
    )


def _cells(
    row: Measured, values: Mapping[str, float], header: Sequence[str], text: Callable[[float], str]
) -> list[str]:
    return [row.name, *(_known(values[each], text) for each in header[1:])]


def _known(value: float, text: Callable[[float], str]) -> str:
    return text(value) if math.isfinite(value) else "fails"


def _speed(row: Measured) -> list[str]:
    cells = [row.name, *(_known(each, duration) for each in row.commands.values())]
    if row.run is None:
        return [*cells, "", ""]
    ratio = row.run.ratio
    spread = f"{ratio.value:.2f} ({ratio.p10:.2f} .. {ratio.p90:.2f})"
    return [*cells, spread, f"{row.run.aa.value:.2f}"]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def main() -> None:
    """Measure the models named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--quick", action="store_true", help="fewer runs: for a first look")
    parser.add_argument("--output", type=Path, help="write the tables here as well")
    args = parser.parse_args()
    rows = []
    for name, source in models(args.names).items():
        with tempfile.TemporaryDirectory(prefix="edgec-bench-") as folder:
            rows.append(measure(name, source, Path(folder), quick=args.quick))
        print(f"{name}: {'; '.join(rows[-1].broken()) or 'within its bounds'}", flush=True)
    text = markdown(rows)
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    print(text)
    outside = [f"{row.name} ({'; '.join(row.broken())})" for row in rows if row.broken()]
    if outside:
        sys.exit(f"outside their bounds: {', '.join(outside)}")


if __name__ == "__main__":
    main()
