"""Tables in the terminal, and the conclusions below them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from stochnorm.report.tables import conclusions
from stochnorm.runs.records import Failure, Record

Build = Callable[..., list[Record]]

BOLD, UNDERLINE = "\x1b[1m", "\x1b[4m"
FAILURE = Failure(
    "delta", "photos", "resnet18", 15, 2, "runs/photos-delta-abc", reason="ValueError: loss is nan\nat step 3"
)


def test_names_are_no_markup_of_the_terminal(build_records: Build, shown: Callable[..., str]) -> None:
    name = "[bold]x[/]:smile:"
    records = build_records({name: [1, 2, 4], "vanilla": [1, 1, 1]}, data="[red]d")
    text = shown(records, [Failure(name, "[i]", "[b]", 15, 2, "[link]", "got [1, 2] [/x]")])
    assert text.count(name) == 4  # results, differences, ranks, failure
    assert "[red]d 15 %" in text
    assert "[i] 15 %, [b], [bold]x[/]:smile:, repetition 2: got [1, 2] [/x] ([link])" in text


def test_the_terminal_shows_the_best_bold_and_the_tied_underlined(
    clear: list[Record], shown: Callable[..., str]
) -> None:
    text = shown(clear, colors=True)
    rows = {line.split()[0]: line for line in text.splitlines() if "±" in line and "deviation" not in line}
    assert f"{BOLD}54.00 ± 1.64" in rows["stochnorm"]
    assert BOLD not in rows["vanilla"] + rows["l2sp"]
    assert UNDERLINE not in text  # both are significantly worse
    assert UNDERLINE in shown([r for r in clear if r.variant != "stochnorm"], colors=True)


def test_the_terminal_shows_significant_differences_bold(clear: list[Record], shown: Callable[..., str]) -> None:
    lines = [line for line in shown(clear, colors=True).splitlines() if " to " in line and "stochnorm -" not in line]
    significant, other = (next(line for line in lines if name in line) for name in ("stochnorm", "l2sp"))
    assert f"{BOLD}+1.80 to +2.20" in significant
    assert BOLD not in other


def test_a_narrow_terminal_breaks_no_name(clear: list[Record], shown: Callable[..., str]) -> None:
    differences = shown(clear, width=80).partition("Differences to")[2].partition("Paired over")[0]
    assert "photos 15 %" in differences
    assert "p (Holm)" in differences
    assert "p (t)" not in differences
    assert "p (t)" in shown(clear, width=100)


def test_the_terminal_fits_a_hundred_columns(build_records: Build, shown: Callable[..., str]) -> None:
    scores = {name: [50.0, 51, 53] for name in ("vanilla", "stochnorm+l2sp+delta+bss, p = 0.3, l2sp.alpha = 0.01")}
    records = [
        record
        for data in ("CUB", "Cars", "Aircraft")
        for rate in (15, 30, 50, 100)
        for record in build_records(scores, data=data, rate=rate)
    ]
    text = shown(records)
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("…") == 0
    assert all(f"{data} {rate} %" in text for data in ("CUB", "Cars", "Aircraft") for rate in (15, 30, 50, 100))


def test_one_table_if_it_fits_and_a_data_set_is_not_divided(build_records: Build, shown: Callable[..., str]) -> None:
    records = [
        record
        for data in ("CUB", "Cars")
        for rate in (15, 30, 50)
        for record in build_records({"vanilla": [50.0, 51]}, data=data, rate=rate)
    ]
    assert shown(records, width=130).count("Test top-1 accuracy, %") == 1
    narrow = [line.split() for line in shown(records, width=80).splitlines() if "15 %" in line]
    assert [line[::3] for line in narrow] == [["CUB"] * 3, ["Cars"] * 3]


def test_failures_have_a_line_and_a_reason_each(few: list[Record], shown: Callable[..., str]) -> None:
    lines = shown(few, [FAILURE, replace(FAILURE, repeat=3, reason="killed")], width=120).splitlines()
    at = lines.index("2 runs failed")
    assert lines[at + 1 : at + 3] == [
        "photos 15 %, resnet18, delta, repetition 2: ValueError: loss is nan at step 3 (runs/photos-delta-abc)",
        "photos 15 %, resnet18, delta, repetition 3: killed (runs/photos-delta-abc)",
    ]


def test_a_significant_difference_is_said_in_numbers(clear: list[Record]) -> None:
    """2 -+ 2.776 * sqrt(0.025 / 5)."""
    assert conclusions(clear) == [
        "photos 15 %: stochnorm - vanilla: +2.00 points (95 %: 1.80 to 2.20; p <0.001 after Holm, n = 5).",
        "Not significant at 5 % after Holm: 1 of 2 differences to vanilla (n of 3 or more). This proves neither a "
        "difference nor equality.",
    ]


@pytest.mark.parametrize("n", [1, 2])
def test_nothing_is_concluded_from_fewer_than_three_pairs(n: int, clear: list[Record]) -> None:
    records = [record for record in clear if record.data_seed < n]
    assert conclusions(records) == [
        f"Nothing can be concluded from n = {n}: 2 differences to vanilla. Repeat with 3 seeds at least, better 5 or "
        "more."
    ]


def test_two_pairs_are_not_shown_as_significant_though_t_says_so(
    build_records: Build, shown: Callable[..., str]
) -> None:
    records = build_records({"vanilla": [50, 51], "stochnorm": [60, 61.001]})
    row = next(line for line in shown(records, colors=True).splitlines() if "+10.00" in line)
    assert "<0.001" in row
    assert BOLD not in row


def test_what_cannot_be_compared_is_said(build_records: Build) -> None:
    records = build_records({"vanilla": [50, ...], "bss": [..., 50]})
    assert conclusions(records) == [
        "photos 15 %: bss and vanilla have no repetition (data_seed and seed) in common, so they are not compared."
    ]
    assert "no run of l2sp" in conclusions(records, reference="l2sp")[0]
    assert conclusions(build_records({"vanilla": [None], "bss": [None]})) == [
        "No run has a test score, so nothing is compared."
    ]
