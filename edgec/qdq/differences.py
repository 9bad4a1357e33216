"""How far integers are from what ONNX Runtime makes of the quantized model as it is given.

That dequantizes, computes in floats and rounds to the next step; sums of floats and one more
rounding between may end at the step beside. Where integers are the contract (`docs/integers.md`)
this is no error, but it is counted.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgec.arrays import Array
from edgec.data import TensorLike, index_limits, open_data
from edgec.errors import VerifyError
from edgec.peers import EngineError
from edgec.reference import Reference

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_SAME_VALUES = frozenset(
    ["Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"]
)


SAMPLES = 4
"""Random ones, by which it is counted."""
ROUNDING = 1e-6
"""Of the largest value: floats that are nearer were only rounded elsewhere."""


@dataclass(frozen=True)
class Difference:
    """Of one output `differing` of `values` are others, by `most` at most.

    `most` counts steps of the output's scale; where the output is of floats that were not
    quantized, so that `in_steps` is not set, it is a share of the largest value.
    """

    output: str
    values: int
    differing: int
    most: float
    in_steps: bool

    def __str__(self) -> str:
        text = f"'{self.output}': {self.differing} of {self.values}"
        if not self.differing:
            return text
        steps = f"{self.most:.0f} step{'s'[: self.most != 1]}"
        return f"{text} by {steps if self.in_steps else f'{self.most:.2g} of the largest'} at most"

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "output": self.output,
            "values": self.values,
            "differing": self.differing,
            "most": float(f"{self.most:.3g}"),
            "unit": "steps" if self.in_steps else "of the largest",
        }


def differences(
    source: str | os.PathLike[str] | onnx.ModelProto,
    integers: onnx.ModelProto,
    inputs: Sequence[TensorLike],
) -> list[Difference]:
    """How the outputs of the graph of `integers` differ from those of the quantized model `source`,
    both by ONNX Runtime without optimisations. Outputs of other shapes, or of neither floats nor
    integers, are left out; nothing is found where ONNX Runtime cannot run one of the models."""
    given: dict[str, list[Array]] = defaultdict(list)
    computed: dict[str, list[Array]] = defaultdict(list)
    try:
        with Reference(source) as left, Reference(integers) as right:
            model, limits = left.model, index_limits(left.model)
            for sample in open_data(inputs, ["random"], count=SAMPLES, limits=limits):
                for oracle, found in ((left, given), (right, computed)):
                    for name, array in oracle.run(sample)[0].items():
                        found[name].append(array)
    except (EngineError, VerifyError):
        return []
    return [
        difference(name, given[name], computed[name], step_of(model, name))
        for name in given
        if given[name][0].dtype.kind in "fiu"
        and [a.shape for a in given[name]] == [a.shape for a in computed[name]]
    ]


def difference(
    name: str, given: Sequence[Array], computed: Sequence[Array], step: float
) -> Difference:
    """Of the output `name`, in units of its `step`; 0 where it has none."""
    wanted, made = (
        np.concatenate([array.reshape(-1).astype(np.float64) for array in arrays])
        for arrays in (given, computed)
    )
    apart = np.abs(made - wanted)
    finite = np.isfinite(apart)
    if step:
        # Less than half a step is of the last multiplication by the scale.
        counts = np.rint(apart[finite] / step)
        most = counts.max(initial=0.0)
        return Difference(name, wanted.size, int((counts > 0).sum()), float(most), True)
    largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
    shares = apart[finite] / (largest or 1.0)
    beyond = shares[shares > ROUNDING]
    return Difference(name, wanted.size, beyond.size, float(beyond.max(initial=0.0)), False)


def summary(found: Sequence[Difference]) -> str:
    """In a line, what `compile` says of it."""
    listed = "; ".join(map(str, found))
    return f"values that differ from ONNX Runtime's of the quantized model itself: {listed}"


def step_of(model: onnx.ModelProto, output: str) -> float:
    """The scale of the DequantizeLinear that made `output`, moved or not; 1 of integers, 0
    where there is none."""
    [info] = [info for info in model.graph.output if info.name == output]
    if info.type.tensor_type.elem_type not in _FLOATS:
        return 1.0
    makers = {name: node for node in model.graph.node for name in node.output}
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    node = makers.get(output)
    while node is not None and node.op_type in _SAME_VALUES:
        node = makers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear" or node.input[1] not in scales:
        return 0.0
    scale = numpy_helper.to_array(scales[node.input[1]])
    return float(scale.reshape(-1)[0]) if scale.size == 1 else 0.0
