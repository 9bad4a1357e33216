"""Compute in float16 instead of float32, weights included.

    y = Conv(x, w)   =>   y = Cast(Conv(Cast(x), w16)), with no Cast between two converted operators

The inputs and outputs of the model stay float32 unless `keep_io` is false. `keep` are operators and
names of nodes that stay float32 (`keep=Conv+head`). Operators that add up many values or leave the
range soon stay it too, unless `delicate` is true: Softmax, Exp, reductions, most normalisations.

`--verify each` undoes it where a tensor overflows on values of ordinary size.

*Needs* an operator of the main graph that has float16 at the model's opset, constants within its
range that do not vanish in it, and more than the moving of data between operators that stay.

*Numerics*: float16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgec.narrow import Narrow
from edgec.rewrite import Numerics


@dataclass(frozen=True)
class ConvertToFloat16(Narrow):
    name: ClassVar[str] = "convert-to-float16"
    numerics: ClassVar[Numerics] = "float16"
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float16)
