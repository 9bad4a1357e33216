"""Tables and quantities as text."""

from __future__ import annotations

from collections.abc import Sequence


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, text: Sequence[int] = (0,)
) -> str:
    """Columns under a header: those of `text` to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(width) if i in text else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def duration(seconds: float) -> str:
    """Three significant digits: "12.3 us", "1.23 ms", "123 ms", "1.23 s"."""
    for scale, unit in ((1e-6, "us"), (1e-3, "ms")):
        if seconds < 0.9995 * scale * 1000:
            return f"{_digits(seconds / scale)} {unit}"
    return f"{_digits(seconds)} s"


def size(nbytes: float) -> str:
    """Three significant digits: "512 B", "1.50 KiB", "24.0 MiB"."""
    if nbytes < 1000:
        return f"{nbytes:.0f} B"
    for unit in ("KiB", "MiB"):
        nbytes /= 1024
        if nbytes < 999.5:
            return f"{_digits(nbytes)} {unit}"
    return f"{_digits(nbytes / 1024)} GiB"


def _digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"
