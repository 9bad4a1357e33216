"""Golden data: inputs and the outputs that a board must reproduce.

Of each input only a head is stored and repeated to fill the tensor, so that golden data stays small
however large the input: `np.resize(head, shape)`. The extents of outputs that a run decides follow,
where there are any, as int64, then the outputs, whole. Each of these parts starts at a multiple of
64 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgec.arrays import Array
from edgec.emit.glue import Tolerance
from edgec.packing import is_packed, pack
from edgec.program import Extent, Tensor, aligned, bits_of

HEAD_ELEMENTS = 4093
"""Elements stored of an input, as in `EDGEC_GOLDEN_HEAD`: a prime, so that the repetition does not
line up with rows."""

RTOL, ATOL_OF_PEAK = 1e-4, 1e-4
"""A board may differ from the reference by this much, relative to the value and to the largest."""


def golden_inputs(sample: Mapping[str, Array], inputs: Sequence[Tensor]) -> dict[str, Array]:
    """`sample` with every input made of the repeated head of its values."""
    return {tensor.name: np.resize(_head(sample[tensor.name]), tensor.shape) for tensor in inputs}


def pack_golden(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    sample: Mapping[str, Array],
    expected: Mapping[str, Array],
    extents: Sequence[Extent] = (),
) -> bytes:
    """The golden member of an artifact."""
    heads = [_head(sample[tensor.name]) for tensor in inputs]
    decided = [expected[extent.output].shape[extent.axis] for extent in extents]
    block = bytearray()
    results = [expected[tensor.name] for tensor in outputs]
    for array in (*heads, np.array(decided, np.int64), *results):
        stored = pack(array) if is_packed(array.dtype.name) else array
        data = np.ascontiguousarray(stored).tobytes()
        block += data + bytes(aligned(len(data)) - len(data))
    return bytes(block)


def _head(array: Array) -> Array:
    """What is stored of an input; of elements that share bytes, as many bytes."""
    return array.ravel()[: HEAD_ELEMENTS * max(8 // bits_of(array.dtype.name), 1)]


def tolerances(
    outputs: Sequence[Tensor], expected: Mapping[str, Array], moved: Mapping[str, float]
) -> list[Tolerance]:
    """What the self-test allows each output: nothing for integers, but what rounding may have
    `moved` it by."""
    found = []
    for tensor in outputs:
        values = expected[tensor.name]
        own = moved.get(tensor.name, 0.0)
        if np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_:
            found.append(Tolerance(0.0, own))
            continue
        finite = np.abs(values[np.isfinite(values)].astype(np.float64))
        found.append(Tolerance(RTOL, max(ATOL_OF_PEAK * float(finite.max(initial=0.0)), own)))
    return found
