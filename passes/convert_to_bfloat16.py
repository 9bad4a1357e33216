"""Compute in bfloat16 instead of float32, weights included.

    y = Conv(x, w)   =>   y = Cast(Conv(Cast(x), w16)), with no Cast between two converted operators

As `convert-to-float16`, with its options; see there. ONNX Runtime has hardly an operator in
bfloat16 on a CPU, so `--verify each` undoes this pass there.

*Needs* an operator of the main graph that has bfloat16 at the model's opset, constants within its
range that do not vanish in it, and more than the moving of data between operators that stay.

*Numerics*: bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from edgec.narrow import Narrow
from edgec.rewrite import Numerics


@dataclass(frozen=True)
class ConvertToBfloat16(Narrow):
    name: ClassVar[str] = "convert-to-bfloat16"
    numerics: ClassVar[Numerics] = "bfloat16"
    dtype: ClassVar[np.dtype[Any]] = np.dtype(ml_dtypes.bfloat16)
