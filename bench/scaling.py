"""How the time of the optimizer grows with the graph: generated models of 1,000 to 20,000 nodes.

    python bench/scaling.py [SHAPE ...] [--output FILE.md]

Each shape is built so that passes find work all over it. Time is that of loading, passes and
writing back, in one process. Two bounds, and an error where one is broken: time grows no faster
than nodes times their logarithm, with SLACK for noise; 20,000 nodes take at most LIMIT_S seconds.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.optimizer import Pipeline, optimize_model
from edgec.report import duration

SIZES = (1_000, 5_000, 20_000)
SLACK = 1.3
LIMIT_S = 30.0
REPEATS = 3
OPSET = 17


@dataclass
class Model:
    """A model under construction; `last` is the tensor that the next node reads."""

    shape: tuple[int, ...]
    last: str = "x"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """A node of one output, which becomes `last`."""
        self.last = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [self.last], self.last, **attributes))
        return self.last

    def constant(self, values: object, dtype: type = np.float32) -> str:
        """A new initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def build(self) -> onnx.ModelProto:
        """The model with `outputs`, or else `last`, as its outputs."""
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        names = self.outputs or [self.last]
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
        graph = helper.make_graph(self.nodes, "scaling", [x], made, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


def chain(count: int) -> onnx.ModelProto:
    """Activations, scalar arithmetic and identities, one after the other."""
    model = Model((1, 64))
    while len(model.nodes) < count:
        model.add("Relu", model.last)
        model.add("Identity", model.last)
        model.add("Mul", model.last, model.constant(0.5))
        model.add("Mul", model.last, model.constant(1.5))
        model.add("Sigmoid", model.last)
    return model.build()


def fan_out(count: int) -> onnx.ModelProto:
    """One tensor that a third of the nodes read, and one node that reads another third."""
    model = Model((1, 64))
    source = model.add("Identity", "x")
    ends = []
    while len(model.nodes) < count - 1:
        scaled = model.add("Mul", source, model.constant(1 + len(ends) // 2))
        model.add("Relu", scaled)
        ends.append(model.add("Identity", model.last))
    model.add("Sum", *ends)
    return model.build()


def outputs(count: int) -> onnx.ModelProto:
    """Every third node makes an output of the model, through an Identity."""
    model = Model((1, 64))
    while len(model.nodes) < count:
        model.add("Mul", model.last, model.constant(1))
        made = model.add("Relu", model.last)
        model.outputs.append(model.add("Identity", made))
        model.last = made
    return model.build()


def blocks(count: int) -> onnx.ModelProto:
    """Residual convolutions with BatchNormalization, moved to channels last and back."""
    model = Model((1, 4, 8, 8))
    rng = np.random.default_rng(0)
    while len(model.nodes) < count:
        source = model.last
        for _ in range(2):
            weight = model.constant(rng.standard_normal((4, 4, 1, 1)))
            model.add("Conv", model.last, weight)
            scale, bias, mean, variance = (model.constant(np.full(4, v)) for v in (2, 1, 0, 1))
            model.add("BatchNormalization", model.last, scale, bias, mean, variance)
            model.add("Relu", model.last)
        model.add("Add", model.last, source)
        model.add("Transpose", model.last, perm=[0, 2, 3, 1])
        channels = model.add("Mul", model.last, model.constant(np.arange(4)))
        model.add("Transpose", channels, perm=[0, 3, 1, 2])
    return model.build()


def shape_arithmetic(count: int) -> onnx.ModelProto:
    """Reshapes to what Shape, Gather and Concat compute, and common subexpressions."""
    model = Model((2, 8, 16))
    while len(model.nodes) < count:
        source = model.last
        shape = model.add("Shape", source)
        first = model.add("Gather", shape, model.constant([0], np.int64))
        rest = model.add("Mul", model.constant([8], np.int64), model.constant([16], np.int64))
        flat = model.add("Concat", first, rest, axis=0)
        model.add("Reshape", source, flat)
        square = model.add("Reshape", model.last, model.constant([2, 8, 16], np.int64))
        left = model.add("Sin", square)
        right = model.add("Sin", square)
        model.add("Add", left, right)
    return model.build()


SHAPES: dict[str, Callable[[int], onnx.ModelProto]] = {
    "chain": chain,
    "fan-out": fan_out,
    "outputs": outputs,
    "blocks": blocks,
    "shape arithmetic": shape_arithmetic,
}
HEADER = ("shape", *(f"{size:,} nodes" for size in SIZES), "nodes left", "growth / bound")


@dataclass(frozen=True)
class Row:
    """Seconds by size of one shape, and the nodes that are left of the largest."""

    name: str
    seconds: tuple[float, ...]
    left: int

    @property
    def growth(self) -> float:
        """The time of the largest over that of the smallest."""
        return self.seconds[-1] / self.seconds[0]

    @property
    def within_bounds(self) -> bool:
        return self.growth <= growth_bound() and self.seconds[-1] <= LIMIT_S

    @property
    def cells(self) -> tuple[str, ...]:
        times = map(duration, self.seconds)
        return (self.name, *times, f"{self.left:,}", f"{self.growth:.1f} / {growth_bound():.1f}")


def growth_bound() -> float:
    """How many times as long the largest size may take as the smallest: n log n, and noise."""
    first, last = SIZES[0], SIZES[-1]
    return last / first * math.log(last) / math.log(first) * SLACK


def measure(name: str) -> Row:
    """Load, passes and writing back, in process; the fastest of REPEATS."""
    seconds = []
    for size in SIZES:
        model = SHAPES[name](size)
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            result = optimize_model(model, Pipeline(level=3))
            times.append(time.perf_counter() - started)
        seconds.append(min(times))
    return Row(name, tuple(seconds), result.after["nodes"])


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    return "\n".join([*lines, *("| " + " | ".join(row.cells) + " |" for row in rows)])


def main() -> None:
    """Measure the shapes named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--output", type=Path, help="write the table here as well")
    args = parser.parse_args()
    optimize_model(chain(SIZES[0]), Pipeline(level=3))
    rows = []
    for name in args.names or SHAPES:
        rows.append(measure(name))
        print(" | ".join(rows[-1].cells), flush=True)
    text = table(rows)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")
    outside = [row.name for row in rows if not row.within_bounds]
    if outside:
        sys.exit(f"outside their bounds: {', '.join(outside)}")


if __name__ == "__main__":
    main()
