"""What tests of integer operators draw."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from integer.contract import Scaled

FEW = settings(
    max_examples=1,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MANY = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def scaled(draw: st.DrawFn, scale: float) -> Scaled:
    """Bytes of any zero point, at both ends, too."""
    dtype = draw(st.sampled_from(["uint8", "int8"]))
    limits = np.iinfo(dtype)
    zero = draw(st.sampled_from([int(limits.min), int(limits.max), 0, 101]))
    return Scaled(scale, zero, dtype)
