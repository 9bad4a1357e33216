"""Images with zeros around them."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from edgec.lower.context import literal
from edgec.lower.window import Window


def bordered(data: te.Tensor, top: int, left: int, rows: int, columns: int) -> te.Tensor:
    """`data` [N, C, H, W] or [N, C / b, H, W, b] inside of zeros, `rows` by `columns` in all; rows
    and columns that nobody asks for are not there. The image itself where nothing is added."""
    height, width = int(data.shape[2]), int(data.shape[3])
    if not top and not left and rows <= height and columns <= width:
        return data

    def element(n: Any, c: Any, i: Any, j: Any, *lane: Any) -> Any:
        inside = tirx.all(i >= top, i < top + height, j >= left, j < left + width)
        return tirx.if_then_else(
            inside, data(n, c, i - top, j - left, *lane), literal(0, "float32")
        )

    return te.compute((*data.shape[:2], rows, columns, *data.shape[4:]), element, name="pad")


def padded_for(data: te.Tensor, w: Window) -> te.Tensor:
    """The image with zeros where windows reach beyond it; itself where none does."""
    rows, columns = (
        (size - 1) * stride + reach
        for size, stride, reach in zip(w.sizes, w.strides, w.reach, strict=True)
    )
    top, left = w.before
    return bordered(data, top, left, rows, columns)
