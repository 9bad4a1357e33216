"""Images with zeros, or another value, around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from edgec.lower.context import literal
from edgec.lower.window import Window


def bordered(
    data: te.Tensor,
    top: int,
    left: int,
    rows: int,
    columns: int,
    space: int = 2,
    fill: float = 0,
    kept: bool = False,
    form: Callable[[Any], Any] | None = None,
) -> te.Tensor:
    """`data` [N, C, H, W] or [N, C / b, H, W, b] inside of zeros, or of `fill`, `rows` by `columns`
    in all; rows and columns that nobody asks for are not there. The image itself where nothing is
    added. `space` is the axis of its rows, which that of its columns follows. A border that is
    `kept` is a stage of its own (`edgec.targets.cpu.blocks`). `form` is what becomes of each
    element, those of the border too."""
    height, width = int(data.shape[space]), int(data.shape[space + 1])
    if not top and not left and rows <= height and columns <= width:
        return data

    def element(*index: Any) -> Any:
        (*before, i, j), after = index[: space + 2], index[space + 2 :]
        inside = tirx.all(i >= top, i < top + height, j >= left, j < left + width)
        value = data(*before, i - top, j - left, *after)
        made = tirx.if_then_else(inside, value, literal(fill, str(data.dtype)))
        return form(made) if form else made

    shape = (*data.shape[:space], rows, columns, *data.shape[space + 2 :])
    return te.compute(shape, element, name="pad", attrs={"edgec.kept": True} if kept else None)


def padded_for(data: te.Tensor, w: Window, space: int = 2) -> te.Tensor:
    """The image with zeros where windows reach beyond it; itself where none does."""
    rows, columns = (
        (size - 1) * stride + reach
        for size, stride, reach in zip(w.sizes, w.strides, w.reach, strict=True)
    )
    top, left = w.before
    return bordered(data, top, left, rows, columns, space)
