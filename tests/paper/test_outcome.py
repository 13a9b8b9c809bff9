"""Tables of our numbers next to the paper's."""

from __future__ import annotations

import csv
from collections.abc import Callable

import pytest
from rich.console import Console

from stochnorm.comparison.grid import GridRun
from stochnorm.paper.catalogue import EXPERIMENTS
from stochnorm.paper.figures import draw
from stochnorm.paper.outcome import Outcome, format_csv, format_markdown, show
from stochnorm.paper.small import NOTE


def few(run: GridRun) -> float | None:
    """Two repetitions of two methods at 15 % of CUB; one of them once more, without a test score."""
    config = run.config
    if config.data != "/data/cub" or config.rate != 15 or run.repeat > 2:
        return None
    return {"vanilla": [44.0, 46.0, None], "stochnorm": [50.0, None, None]}.get(run.variant, [None] * 3)[run.repeat]


def test_a_table_has_ours_the_papers_and_the_difference(outcome: Callable[..., Outcome]) -> None:
    text = format_markdown(outcome("table3", few))
    assert text.startswith("# Table 3: top-1 accuracy of StochNorm and other methods, ResNet-50\n")
    assert NOTE not in text
    block = text.partition("## CUB-200-2011\n\n")[2].partition("\n\n")[0].splitlines()
    assert block[:7] == [
        "| rate | variant | ours, top-1 % | paper | difference |",
        "|---:|---|---:|---:|---:|",
        "| 15 % | vanilla | 45.00 ± 1.41 (2) | 45.25 ± 0.12 | -0.25 |",
        "| 15 % | l2sp | - | 45.08 ± 0.19 | - |",
        "| 15 % | delta | - | 46.83 ± 0.21 | - |",
        "| 15 % | bss | - | 47.74 ± 0.23 | - |",
        "| 15 % | stochnorm | 50.00 (1) | 50.14 ± 0.19 | -0.14 |",
    ]
    assert len(block) == 2 + 20
    assert text.count("\n## ") == 3


def test_numbers_are_in_the_csv_file_with_all_decimals(outcome: Callable[..., Outcome]) -> None:
    rows = list(csv.DictReader(format_csv(outcome("table3", few)).splitlines()))
    assert len(rows) == 60
    assert rows[0] == {
        "experiment": "table3",
        "scale": "paper",
        "data": "cub",
        "backbone": "resnet50.tv_in1k",
        "rate": "15.0",
        "variant": "vanilla",
        "n": "2",
        "mean": "45.0",
        "std": "1.4142135623730951",
        "paper_mean": "45.25",
        "paper_std": "0.12",
        "difference": "-0.25",
        "gain": "",
        "gain_std": "",
    }
    assert (rows[1]["n"], rows[1]["mean"], rows[1]["difference"]) == ("0", "", "")


def test_table_4_has_no_deviations_of_the_paper(outcome: Callable[..., Outcome]) -> None:
    assert "| 100 % | bss+stochnorm | - | 87.85 | - |" in format_markdown(outcome("table4", few))


def test_a_figure_has_dashes_for_the_papers_numbers_and_paired_gains(outcome: Callable[..., Outcome]) -> None:
    text = format_markdown(outcome("figure4d", lambda run: 40.0 + 10 * run.repeat + (run.variant == "BIN")))
    assert "| rate | variant | ours, top-1 % | above BN | paper | difference |" in text
    assert "| 15 % | BIN | 61.00 ± 15.81 (5) | +1.00 ± 0.00 | - | - |" in text
    assert "| 15 % | BN | 60.00 ± 15.81 (5) | - | - | - |" in text


def test_the_small_scale_is_labelled_in_every_form(
    outcome: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    result = outcome("figure4c", lambda run: 30.0, scale="small")
    show(Console(width=80), result)
    printed = capsys.readouterr().out
    assert "no result" in printed
    assert "Small scale" in printed
    assert format_markdown(result).startswith(f"# Figure 4(c): impact of p ({NOTE})\n\n- Small scale: no result.")
    assert all(row["scale"] == "small" for row in csv.DictReader(format_csv(result).splitlines()))
    assert [axes.get_title("right") for axes in draw(result).axes] == [f" ({NOTE})"]


def test_the_table_fits_80_columns(outcome: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    for name in EXPERIMENTS:
        show(Console(width=80), outcome(name, lambda run: 50.0 + run.repeat))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert "50.14 ± 0.19" in printed
    assert "NIH ChestX-ray14" in printed
