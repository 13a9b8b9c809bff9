"""CSV that no spreadsheet runs, and that reads back."""

from __future__ import annotations

import csv
import io

import pytest

from stochnorm.spreadsheet import format_csv, plain

FORMULAS = [
    "=cmd|'/c calc'!A1", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1", "'=1", "''+1", "'-x", "-",
    "=",
]  # fmt: skip
NAMES = ["red", "5 = five", "'quoted'", "don't", "", "\u9ce5", "a,b", 'say "x"', "a\rb", "-0.5", "+3", "-1e-05", "007"]


@pytest.mark.parametrize("name", [*FORMULAS, *NAMES])
def test_names_read_back_and_none_is_a_formula(name: str) -> None:
    ((cell, other),) = csv.reader(io.StringIO(format_csv([[name, "x"]]), newline=""), strict=True)
    assert plain(cell) == name
    assert other == "x"
    assert (cell != name) == (name in FORMULAS)
    assert cell[:1] not in tuple("=+-@\t\r\n\uff1d") or cell in NAMES


def test_numbers_stay_numbers() -> None:
    assert format_csv([[-1, -0.5, 1e-9, None, True, "-0.25"]]) == "-1,-0.5,1e-09,,True,-0.25\n"
