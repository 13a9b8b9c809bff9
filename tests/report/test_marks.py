"""The marks of the best, of those tied with it, and of significant differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stochnorm.report.statistics import FEW, Difference, marks, significant
from stochnorm.runs.records import Cell, Record

Build = Callable[..., list[Record]]


def test_the_best_and_what_is_tied_with_it_are_marked(build_records: Build) -> None:
    best = [70.0, 71, 72, 70.5, 71.5]
    near = [b - g for b, g in zip(best, [0.5, -0.4, 0.3, -0.2, 0.1], strict=True)]
    records = build_records({"worse": [b - 5 - k / 10 for k, b in enumerate(best)], "near": near, "best": best})
    cell = records[0].cell
    assert marks(records) == {(cell, "near"): "tied", (cell, "best"): "best"}


def test_equal_means_are_all_the_best(build_records: Build) -> None:
    records = build_records({"a": [70], "b": [70], "c": [69]})
    assert {variant: mark for (_, variant), mark in marks(records).items()} == {"a": "best", "b": "best"}


def test_nothing_is_marked_where_one_variant_has_a_score(build_records: Build) -> None:
    assert marks(build_records({"a": [70, 71], "b": [None, None]})) == {}


@pytest.mark.parametrize(
    ("n", "p", "expected"),
    [(FEW, 0.049, True), (FEW, 0.05, False), (FEW - 1, 0.001, False), (FEW, None, False)],
)
def test_a_difference_is_called_one_below_5_percent_and_from_three_pairs_on(
    n: int, p: float | None, expected: bool
) -> None:
    assert FEW == 3
    cell = Cell("photos", "resnet18", 15)
    for mean in (1.0, -1.0):
        assert significant(Difference(cell, "a", "b", n, mean, (0.5, 1.5), 0.01, 0.25, p)) is expected
