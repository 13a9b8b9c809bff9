"""Numbers, lists and times in words: at the limits between two forms."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from stochnorm import text
from stochnorm.text import (
    DASH,
    count,
    decimals,
    duration,
    format_p,
    interval,
    printable,
    rough_duration,
    rounded,
    signed,
    some,
    spaced_p,
    span,
    tally,
)

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("names", "most", "expected"),
    [
        ([], 5, ""),
        (["a"], 5, "a"),
        (["a", "b", "c"], 3, "a, b, c"),
        (["a", "b", "c"], 2, "a, b and 1 more"),
        (["a"] * 1005, 1, "a and 1004 more"),
    ],
)
def test_a_list_names_the_first_and_counts_the_rest(names: list[str], most: int, expected: str) -> None:
    assert some(names, most) == expected


def test_five_names_are_listed_unless_said_otherwise() -> None:
    assert some(list("abcde")) == "a, b, c, d, e"
    assert some(list("abcdef")) == "a, b, c, d, e and 1 more"


@pytest.mark.parametrize(
    ("n", "what", "expected"),
    [
        (0, "run", "0 runs"),
        (1, "run", "1 run"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (1000, "run", "1,000 runs"),
    ],
)
def test_a_count_has_the_word_in_its_number(n: int, what: str, expected: str) -> None:
    assert count(n, what) == expected


def test_a_tally_keeps_its_order() -> None:
    assert tally({"images": 11788, "classes": 200, "patients": 0}) == "11,788 images, 200 classes, 0 patients"
    assert tally({}) == ""


@pytest.mark.parametrize(
    ("numbers", "expected"), [([3], "3"), ([4, 4], "4"), ([5, 3, 4], "3 to 5"), ({999, 1500}, "999 to 1,500")]
)
def test_a_span_has_both_ends_or_one_number(numbers: list[int], expected: str) -> None:
    assert span(numbers) == expected


def test_an_interval_has_one_digit_or_the_form_that_is_asked_for() -> None:
    assert interval([81.26, 90]) == "81.3 to 90.0"
    assert interval((-0.5, 1), "+.2f") == "-0.50 to +1.00"


def test_numbers_have_separators_and_signs() -> None:
    assert decimals(1234.56, 1) == "1,234.6"
    assert decimals(0.126, 2) == "0.13"
    assert signed(1.25, 2) == "+1.25"
    assert signed(-1, 1) == f"{MINUS}1.0"


@pytest.mark.parametrize(("value", "expected"), [(2.346, "2.35"), (999.0, "999.00"), (1000, "1e+03")])
def test_large_numbers_are_rounded_to_two_digits(value: float, expected: str) -> None:
    assert rounded(value) == expected


def test_p_values_below_a_thousandth_are_not_told_apart() -> None:
    assert [format_p(p) for p in (1, 0.0742, 0.001, 0.00099)] == ["1.000", "0.074", "0.001", "<0.001"]
    assert [spaced_p(p) for p in (0.001, 0.00099)] == ["0.001", "< 0.001"]


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0, "0 s", "0 s"),
        (89, "89 s", "89 s"),
        (90, "1.5 min", "2 min"),
        (5369, "89.5 min", "89 min"),
        (5400, "1.5 h", "1.5 h"),
        (3_600_000, "1,000.0 h", "1000.0 h"),
    ],
)
def test_durations_change_their_unit(seconds: float, exact: str, rough: str) -> None:
    assert duration(seconds) == exact
    assert rough_duration(seconds) == rough


def test_a_dash_is_written_in_place_of_what_there_is_not() -> None:
    assert [decimals(None, 1), signed(None, 1), spaced_p(None), duration(None)] == [DASH] * 4


def test_nothing_of_the_project_is_imported() -> None:
    tree = ast.parse(Path(text.__file__).read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert modules == ["__future__", "collections.abc"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain, gr\u00fcn, \u9ce5, \u05d0\u05d1\u05d2, \U0001f600", None),
        ("wide\u3000and\u00a0fixed space", None),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f52c", None),  # joiners
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m \x7f \r \n \t \0", r"\x9b31m \x7f \r \n \t \x00"),
        ("\u202etxt.exe \u2066 \u200e \ufeff", r"\u202etxt.exe \u2066 \u200e \ufeff"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_names_never_steer_a_terminal(name: str, shown: str | None) -> None:
    assert printable(name) == (name if shown is None else shown)
    assert some([name]) == printable(name)
    assert printable(f"{name}\n", "\n").endswith("\n")
