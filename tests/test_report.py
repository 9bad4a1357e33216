"""Tables and quantities as text."""

from __future__ import annotations

import pytest

from edgec.report import duration, size, table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 us"),
        (1.234e-6, "1.23 us"),
        (99.94e-6, "99.9 us"),
        (999.4e-6, "999 us"),
        (999.6e-6, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (125.0, "125 s"),
    ],
)
def test_duration_has_three_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1.00 KiB"),
        (12_800, "12.5 KiB"),
        (1 << 20, "1.00 MiB"),
        (5 << 30, "5.00 GiB"),
        (5000 << 30, "5000 GiB"),
    ],
)
def test_size_has_three_digits(nbytes: int, text: str) -> None:
    assert size(nbytes) == text


def test_table_aligns_the_first_column_left_and_the_others_right() -> None:
    text = table(("name", "n"), [("a", "10"), ("longer", "2")])
    assert text.splitlines() == ["name     n", "----------", "a       10", "longer   2"]


def test_table_with_two_columns_of_text() -> None:
    text = table(("name", "n", "why"), [("a", "10", "x"), ("b", "2", "longer")], text=(0, 2))
    assert text.splitlines()[2:] == ["a     10  x", "b      2  longer"]


def test_table_without_rows() -> None:
    assert table(("a", "b"), []).splitlines() == ["a  b", "----"]
