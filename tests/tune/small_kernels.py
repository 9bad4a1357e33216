"""Small kernels to measure, good and bad."""

from __future__ import annotations

from collections.abc import Callable

from tvm import te

from edgec.program import dtype_of
from edgec.tune.measure import Buffer, Kernel

SIZE = 4096


def kernel(
    name: str, body: Callable[..., te.Tensor], *dtypes: str, size: int = SIZE, out: str = "float32"
) -> Kernel:
    """Of vectors of `size` elements; `body` computes the output of them."""
    inputs = [te.placeholder((size,), dtype, name=f"x{i}") for i, dtype in enumerate(dtypes)]
    function = te.create_prim_func([*inputs, body(*inputs)])
    buffers = [Buffer(dtype, size * dtype_of(dtype).itemsize, "input") for dtype in dtypes]
    buffers.append(Buffer(out, size * dtype_of(out).itemsize, "output"))
    return Kernel(name, function, tuple(buffers))


def adds() -> Kernel:
    """A sum of two vectors."""
    return kernel("add", lambda x, y: te.compute((SIZE,), lambda i: x[i] + y[i]), *["float32"] * 2)


def reads_beyond() -> Kernel:
    """Reads one element behind its input."""
    return kernel("beyond", lambda x: te.compute((SIZE,), lambda i: x[i + 1]), "float32")


def never_ends() -> Kernel:
    """Adds up what takes days."""

    def body(x: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, 1 << 30), name="k")
        m = te.reduce_axis((0, 1 << 20), name="m")
        return te.compute((SIZE,), lambda i: te.sum(x[(i * k + m * k) % SIZE], axis=[m, k]))

    return kernel("endless", body, "float32")
