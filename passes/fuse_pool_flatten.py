"""Make one reduction of an average over all positions and the Reshape that drops their axes.

    y = Flatten(GlobalAveragePool(x))      =>   y = ReduceMean(x, axes 2..., keepdims = 0)

AveragePool with a kernel as large as its input is a GlobalAveragePool here; Reshape and Squeeze are
Flattens.

*Needs* float32 or float64, a shape [N, C, ...] that becomes [N, C], each a number or the same
symbol, a pool that nothing else reads, and one outside quantized patterns, where integer kernels
know pools but no reductions.

*Numerics*: rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph import Graph
from edgec.rewrite import Numerics, Rewrite, Skip
from edgec.tensors import Node

_POOLS = ("GlobalAveragePool", "AveragePool")


@dataclass(frozen=True)
class FusePoolFlatten(Rewrite):
    name: ClassVar[str] = "fuse-pool-flatten"
    numerics: ClassVar[Numerics] = "rounding"
    roots: ClassVar[tuple[str, ...]] = ("Flatten", "Reshape", "Squeeze")

    def rewrite(self, node: Node, graph: Graph) -> None:
        pool = graph.producer(node.inputs[0])
        if pool is None or pool.domain or pool.op not in _POOLS:
            raise Skip("the input is not made by an average pool")
        source, result = pool.inputs[0], node.outputs[0]
        if source.dtype not in (np.float32, np.float64):
            raise Skip(f"it computes in {source.dtype}")
        if source.shape is None or result.shape is None or None in source.shape[:2]:
            raise Skip("the shapes are not known")
        if result.shape != source.shape[:2]:
            raise Skip("the result is not [N, C]")
        if graph.uses(pool.outputs[0]) > 1:
            raise Skip("the pool's result has other uses")
        maker = graph.producer(source)
        if maker is not None and maker.op == "DequantizeLinear":
            raise Skip("the pool is part of a quantized pattern")
        if pool.op == "AveragePool":
            _guard_kernel(pool, source.shape[2:])
        axes = graph.constant(np.arange(2, len(source.shape), dtype=np.int64), "axes")
        made = graph.insert(node, "ReduceMean", [source, axes], {"keepdims": 0})
        graph.replace(result, made.outputs[0])


def _guard_kernel(pool: Node, size: tuple[int, ...]) -> None:
    if tuple(pool.attrs["kernel_shape"]) != size:
        raise Skip("the kernel does not cover the input")
    if any(pool.attrs.get("pads", ())) or pool.attrs.get("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    ):
        raise Skip("the pool pads")
