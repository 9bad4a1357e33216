"""A convolution and the depthwise convolution it feeds, as one kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec import targets
from edgec.compiler import Options, compile_model
from edgec.graph import load
from edgec.lower.lowering import lower_graph
from edgec.program import Program

RUNNABLE = tuple(
    name for name in ("x86-64-v2", "x86-64-v3", "host") if targets.runs_here(targets.resolve(name))
)


class Net:
    """Convolutions of images x[1, 3, 97, 90] and h[1, 16, 75, 91]."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(5)
        self.nodes: list[onnx.NodeProto] = []
        self.weights = [
            numpy_helper.from_array(np.float32(value), name)
            for name, value in (("low", 0.0), ("high", 6.0))
        ]
        self.outputs: list[str] = []

    def conv(self, x: str, out: int, depth: int, k: int, name: str, **attrs: object) -> str:
        taps = self.random.normal(0, 1 / np.sqrt(depth * k * k), (out, depth, k, k))
        for kind, values in (("w", taps), ("b", self.random.normal(size=out))):
            self.weights.append(
                numpy_helper.from_array(values.astype(np.float32), f"{kind}_{name}")
            )
        inputs = [x, f"w_{name}", f"b_{name}"]
        self.nodes.append(helper.make_node("Conv", inputs, [name], name=name, **attrs))
        return name

    def clipped(self, x: str) -> str:
        name = f"{x}_clipped"
        self.nodes.append(helper.make_node("Clip", [x, "low", "high"], [name], name=name))
        return name

    def pair(
        self,
        x: str,
        depth: int,
        k: int,
        name: str,
        pads: list[int],
        *,
        of: int = 3,
        stride: int = 1,
    ) -> str:
        """A convolution to 32 channels, clipped, then a depthwise one, clipped."""
        same = [k // 2] * 4
        expanded = self.clipped(self.conv(x, 32, depth, k, f"{name}_expand", pads=same))
        filtered = self.conv(
            expanded, 32, 1, of, f"{name}_filter", group=32, pads=pads, strides=[stride] * 2
        )
        self.outputs.append(self.clipped(filtered))
        return expanded

    def proto(self) -> onnx.ModelProto:
        def info(name: str, *shape: int) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape or None)

        graph = helper.make_graph(
            self.nodes,
            "g",
            [info("x", 1, 3, 97, 90), info("h", 1, 16, 75, 91)],
            [info(name) for name in self.outputs],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 20)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def pairs() -> onnx.ModelProto:
    """Every pair that is to become one kernel."""
    net = Net()
    blocked = net.clipped(net.conv("h", 16, 16, 1, "first"))
    net.pair(blocked, 16, 1, "same", [1, 1, 1, 1])
    net.pair(blocked, 16, 1, "stride", [1, 1, 1, 1], stride=2)
    net.pair(blocked, 16, 1, "valid", [0, 0, 0, 0])
    net.pair(blocked, 16, 1, "uneven", [0, 2, 1, 0])
    net.pair(blocked, 16, 1, "large", [2, 2, 2, 2], of=5, stride=2)
    net.pair("x", 3, 3, "stem", [1, 1, 1, 1])
    return net.proto()


def lowered(model: onnx.ModelProto) -> Program:
    return lower_graph(load(model), "m", [], targets.resolve("x86-64-v3")).program


def test_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    result = compile_model(pairs(), tmp_path / "m.edgec", Options(targets=RUNNABLE))
    verified = [variant["verified"] for variant in result.manifest["variants"]]
    assert verified == ["device"] * len(RUNNABLE)


def test_each_pair_is_one_call() -> None:
    joined = [call.nodes for call in lowered(pairs()).calls() if "depthwise" in call.kernel]
    assert len(joined) == 6
    for nodes in joined:
        kind = nodes[0].split("_")[0]
        assert nodes == (
            f"{kind}_expand",
            f"{kind}_expand_clipped",
            f"{kind}_filter",
            f"{kind}_filter_clipped",
        )


def test_the_image_between_takes_no_memory_of_its_own() -> None:
    image = 4 * 32 * 75 * 91
    assert all(
        buffer.nbytes < image for buffer in lowered(pairs()).buffers if "expand" in buffer.name
    )


@pytest.mark.parametrize("reason", ["an output", "read twice", "small"])
def test_images_that_are_needed_or_small_stay_apart(reason: str) -> None:
    net = Net()
    blocked = net.clipped(net.conv("h", 16, 16, 1, "first"))
    if reason == "small":
        blocked = net.clipped(net.conv(blocked, 16, 16, 1, "half", strides=[2, 2]))
    expanded = net.pair(blocked, 16, 1, "pair", [1, 1, 1, 1])
    if reason == "an output":
        net.outputs.append(expanded)
    if reason == "read twice":
        net.outputs.append(net.conv(expanded, 8, 32, 1, "other"))
    kernels = [call.kernel for call in lowered(net.proto()).calls()]
    assert not any("conv2d" in kernel and "depthwise" in kernel for kernel in kernels)
