"""Models of many nodes, so that one compilation checks dozens of kernels, and their judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import oracle
from onnx import helper, numpy_helper

from edgec import targets
from edgec.compare import compare
from edgec.compiler import compile_model
from edgec.options import Options
from edgec.runtime.load import load

RUNNABLE = tuple(
    name
    for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "host")
    if targets.runs_here(targets.resolve(name))
)
EXTREMES = tuple(sorted({RUNNABLE[0], RUNNABLE[-1]}))
THREADS = (1, 2, 3)
OPSET = 23


class Model:
    """Nodes over inputs of random data; `out` makes a result an output, which is judged."""

    def __init__(self, seed: int = 7) -> None:
        self.random = np.random.default_rng(seed)
        self.feeds: dict[str, np.ndarray] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.outputs: list[str] = []

    def input(self, *shape: int) -> str:
        """Normal float32 values."""
        return self.given(self.random.standard_normal(shape).astype(np.float32))

    def given(self, values: np.ndarray) -> str:
        """An input of these values."""
        name = f"x{len(self.feeds)}"
        self.feeds[name] = values
        return name

    def weight(self, *shape: int) -> str:
        """A constant whose product with normal values has about their size."""
        values = self.random.normal(0, 1 / np.sqrt(np.prod(shape[1:]) or 1), shape)
        return self.constant(values.astype(np.float32))

    def constant(self, values: Any) -> str:
        """A constant; Python's integers become int64."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """The first output of a node."""
        return self.node_of(op, inputs, 1, **attributes)[0]

    def node_of(self, op: str, inputs: Sequence[str], results: int, **attributes: Any) -> list[str]:
        """All outputs of a node."""
        names = [f"{op}{len(self.nodes)}"] + [
            f"{op}{len(self.nodes)}_{i}" for i in range(1, results)
        ]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names

    def out(self, *names: str) -> None:
        self.outputs += names

    def conv(
        self,
        x: str,
        channels: tuple[int, int],
        *kernel: int,
        bias: bool = True,
        op: str = "Conv",
        **attributes: Any,
    ) -> str:
        """A convolution from channels[0] (of a group) to channels[1]."""
        depth, out = channels
        shape = (out, depth, *kernel) if op == "Conv" else (depth, out, *kernel)
        biases = out if op == "Conv" else out * attributes.get("group", 1)
        inputs = [x, self.weight(*shape)] + ([self.weight(biases)] if bias else [])
        return self.node(op, *inputs, **attributes)

    def needed(self) -> list[onnx.NodeProto]:
        """The nodes that outputs depend on."""
        wanted, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        return kept[::-1]

    def proto(self) -> onnx.ModelProto:
        """The model, its outputs without a type."""
        nodes = self.needed()
        used = {name for node in nodes for name in node.input}
        inputs = [_info(name, x) for name, x in self.feeds.items() if name in used]
        weights = [tensor for tensor in self.weights if tensor.name in used]
        outputs = [helper.make_empty_tensor_value_info(name) for name in self.outputs]
        graph = helper.make_graph(nodes, "many", inputs, outputs, weights)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=11)

    def expected(self) -> tuple[onnx.ModelProto, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The model, its inputs, and the outputs that ONNX Runtime makes with optimisations off."""
        proto = self.proto()
        feeds = {info.name: self.feeds[info.name] for info in proto.graph.input}
        made = dict(zip(self.outputs, oracle.run(proto, feeds), strict=True))
        del proto.graph.output[:]
        proto.graph.output.extend(_info(name, array) for name, array in made.items())
        return proto, feeds, made

    def maker(self, output: str) -> onnx.NodeProto:
        """The node that computes `output`."""
        return next(node for node in self.nodes if output in node.output)


def _info(name: str, x: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)


def judge(model: Model, names: Sequence[str], folder: Path, *, level: int = 2) -> None:
    """Compile `model` for the targets `names`, all of which run here, and compare every output with
    ONNX Runtime's under each number of `THREADS`."""
    proto, feeds, expected = model.expected()
    path = folder / "many.edgec"
    result = compile_model(proto, path, Options(targets=tuple(names), level=level))
    wrong = []
    for variant in result.manifest["variants"]:
        assert variant["verified"] == "device"
        for threads in THREADS:
            with load(path, variant=variant["id"], threads=threads) as module:
                assert module.threads == threads
                made = module.run(feeds)
            wrong += [
                f"{variant['id']}, {threads} threads: {report.name} {report.problem}: "
                f"{report.actual} for {report.expected} at {report.index}\n"
                f"  {helper.printable_node(model.maker(report.name))}"
                for report in compare(expected, made)
                if not report.ok
            ]
    assert not wrong, "\n".join(wrong)
