"""Statistics by hand, against the textbook's formulas and against full enumeration; and what has no answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from stochnorm.report.statistics import (
    Difference,
    Rank,
    differences,
    friedman,
    marks,
    ranks,
    summarize,
    tied_with_best,
)
from stochnorm.runs.records import Cell, Record

T_975 = {2: 4.302653, 4: 2.776445}  # quantiles of Student's t by degrees of freedom, from a table

Build = Callable[..., list[Record]]


def gaps(*values: float) -> dict[str, list[float]]:
    """Scores of a variant that differ from the reference's by these."""
    return {"vanilla": [50.0] * len(values), "other": [50 + value for value in values]}


def p_of_three(*values: float) -> float:
    """The t-test of three pairs in closed form, for two degrees of freedom: 1 - t / sqrt(t^2 + 2)."""
    mean = sum(values) / 3
    t = abs(mean) / math.sqrt(sum((value - mean) ** 2 for value in values) / 2 / 3)
    return 1 - t / math.sqrt(t**2 + 2)


def only(found: list[Difference]) -> Difference:
    (difference,) = found
    return difference


def test_mean_and_standard_deviation_by_hand(build_records: Build) -> None:
    first, second = summarize(build_records({"stochnorm": [71, 73, 75], "vanilla": [70, 71, 72]}))
    assert (first.variant, first.n, first.mean, first.std) == ("stochnorm", 3, 73, 2)  # n - 1 in the denominator
    assert (second.variant, second.n, second.mean, second.std) == ("vanilla", 3, 71, 1)
    assert first.cell == Cell("photos", "resnet18", 15)
    assert list(first.values.values()) == [71, 73, 75]
    assert first.values.keys() == second.values.keys()


def test_one_run_has_a_mean_and_nothing_else(build_records: Build) -> None:
    records = build_records({"vanilla": [70]})
    (summary,) = summarize(records)
    assert (summary.n, summary.mean, summary.std) == (1, 70, None)
    assert differences(records) == []
    assert tied_with_best(records) == {summary.cell: {"vanilla"}}
    assert ranks(records) == []
    assert friedman(records) is None


def test_a_single_pair_has_a_difference_and_no_test(build_records: Build) -> None:
    records = build_records(gaps(1.5))
    difference = only(differences(records))
    assert (difference.n, difference.mean) == (1, 1.5)
    assert difference.interval is difference.p_value is difference.p_permutation is difference.p_holm is None
    assert tied_with_best(records) == {difference.cell: {"other"}}


def test_no_runs_have_no_statistics() -> None:
    assert summarize([]) == differences([]) == ranks([]) == []
    assert tied_with_best([]) == {}
    assert friedman([]) is None


def test_interval_and_p_value_are_those_of_the_textbook(build_records: Build) -> None:
    difference = only(differences(build_records(gaps(1, 2, 3))))
    assert difference.mean == 2
    assert difference.interval == pytest.approx((2 - T_975[2] / math.sqrt(3), 2 + T_975[2] / math.sqrt(3)), abs=1e-5)
    assert difference.p_value == pytest.approx(p_of_three(1, 2, 3))
    assert difference.p_holm == difference.p_value  # of one test


def test_what_the_repetitions_have_in_common_falls_out(build_records: Build) -> None:
    """Unpaired, the spread of the repetitions would hide the difference."""
    luck = [10.0, 50, 90, 30, 70]
    shifted = [value + gap for value, gap in zip(luck, [0.9, 1.1, 1, 0.8, 1.2], strict=True)]
    difference = only(differences(build_records({"vanilla": luck, "other": shifted})))
    half = T_975[4] * math.sqrt(0.025) / math.sqrt(5)  # the gaps' variance is 0.025
    assert difference.interval == pytest.approx((1 - half, 1 + half), abs=1e-5)


@pytest.mark.parametrize(
    "correct",
    [[2, 1, -1, 3], [1, 1, 0, -2, 4], [1, -1, -1, 1, 0, 0], [5, -3, 2, 2, 1, -1, 0, 4]],
    ids=lambda gaps: f"{len(gaps)} pairs",
)
def test_permutation_p_is_that_of_all_sign_flips(correct: list[int], build_records: Build) -> None:
    """Scores of 60 images, whose differences are equal but for rounding; counted in whole images."""
    others = [6, 45, 54, 14, 20, 30, 33, 51][: len(correct)]
    scores = {
        "vanilla": [100 * k / 60 for k in others],
        "other": [100 * (k + gap) / 60 for k, gap in zip(others, correct, strict=True)],
    }
    flips = itertools.product((1, -1), repeat=len(correct))
    sums = [abs(sum(s * k for s, k in zip(signs, correct, strict=True))) for signs in flips]
    expected = sum(total >= abs(sum(correct)) for total in sums) / len(sums)
    assert only(differences(build_records(scores))).p_permutation == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_the_smallest_permutation_p_of_n_pairs(n: int, build_records: Build) -> None:
    huge = [40.0 + k for k in range(n)]
    assert only(differences(build_records(gaps(*huge)))).p_permutation == pytest.approx(2 / 2**n)


def test_a_permutation_test_of_many_pairs_draws_and_repeats_itself(build_records: Build) -> None:
    values = [math.sin(k) + 0.3 for k in range(20)]
    first, second = (only(differences(build_records(gaps(*values)))) for _ in range(2))
    assert first.p_permutation == second.p_permutation
    assert first.p_permutation == pytest.approx(first.p_value, abs=0.03)


def test_holm_by_hand(build_records: Build) -> None:
    """The smallest of three p-values times 3, the next times 2, none below the one before, none above 1."""
    middle, small, none = (1.0, 2.0, 3.0), (9.0, 10.0, 11.0), (-1.0, 0.0, 1.0)
    records = build_records(
        {"vanilla": [50] * 3} | {str(g): [50 + gap for gap in g] for g in (middle, small, none)},
    )
    found = {d.variant: d for d in differences(records)}
    assert found[str(small)].p_holm == pytest.approx(3 * p_of_three(*small))
    assert found[str(middle)].p_holm == pytest.approx(2 * p_of_three(*middle))
    assert found[str(none)].p_holm == pytest.approx(1)


def test_holm_keeps_the_order_of_p_values(build_records: Build) -> None:
    """p, a little more than p, and twice p, so that the first two both get 3 p."""
    one, next_ = (9.0, 10.0, 11.0), (8.9, 9.9, 10.9)
    records = build_records({"vanilla": [50] * 3} | {str(g): [50 + gap for gap in g] for g in (one, next_, (1, 2, 3))})
    found = {d.variant: d for d in differences(records)}
    assert found[str(next_)].p_holm == pytest.approx(3 * p_of_three(*one))
    assert 2 * p_of_three(*next_) < 3 * p_of_three(*one)  # what it would be without


def test_holm_is_for_a_cell(build_records: Build) -> None:
    one, two = build_records(gaps(1, 2, 3)), build_records(gaps(2, 2, 5), rate=30)
    assert differences(one + two) == differences(one) + differences(two)


@pytest.mark.parametrize(
    ("scores", "p_permutation"),
    [
        ({"vanilla": [70.0, 71, 72], "other": [70.0, 71, 72]}, 1),
        ({"vanilla": [70.0, 71, 72], "other": [71.0, 72, 73]}, 0.25),
        ({"vanilla": [70.0, 71, 1 / 3], "other": [70.1, 71.1, 1 / 3 + 0.1]}, 0.25),
    ],
    ids=["none", "one", "one but for rounding"],
)
def test_without_variance_there_is_no_t_test(
    scores: dict[str, list[float]], p_permutation: float, build_records: Build
) -> None:
    difference = only(differences(build_records(scores)))
    assert difference.interval is difference.p_value is difference.p_holm is None
    assert difference.p_permutation == p_permutation


def test_what_is_not_tested_does_not_count_for_holm(build_records: Build) -> None:
    same, other = differences(build_records(gaps(1, 2, 3) | {"same": [51.0] * 3}))[::-1]
    assert same.p_holm is None
    assert other.p_holm == other.p_value


def test_pairs_are_the_repetitions_that_both_have(build_records: Build) -> None:
    records = build_records({"vanilla": [70, 71, 72, 73, None], "other": [71, ..., None, 76, 99]})
    assert [(s.variant, s.n) for s in summarize(records)] == [("vanilla", 4), ("other", 3)]
    difference = only(differences(records))
    assert (difference.n, difference.mean) == (2, 2)  # 71 - 70, 76 - 73


def test_the_order_of_the_runs_does_not_matter_to_the_pairs(build_records: Build) -> None:
    records = build_records(gaps(1, 2, 6))
    assert differences(records[::-1])[0].mean == differences(records)[0].mean == 3
    assert differences(records[::-1])[0].p_value == pytest.approx(differences(records)[0].p_value)


def test_runs_of_the_same_images_in_another_order_are_no_pair(build_records: Build) -> None:
    records = build_records(gaps(1, 2))
    other = [replace(r, seed=r.seed + 100) if r.variant == "other" else r for r in records]
    assert differences(other) == []


def test_without_the_reference_there_is_no_difference(build_records: Build) -> None:
    records = build_records({"bss": [1, 2], "l2sp": [2, 4]})
    assert differences(records) == []
    assert only(differences(records, reference="bss")).mean == 1.5
    elsewhere = build_records(gaps(1, 2), rate=30)
    assert {d.cell.rate for d in differences(records + elsewhere)} == {30}


def test_a_variant_without_a_score_is_named_and_not_compared(build_records: Build) -> None:
    records = build_records({"vanilla": [70, 71], "other": [None, None]})
    summary = summarize(records)[1]
    assert (summary.variant, summary.n, summary.mean, summary.std, summary.values) == ("other", 0, None, None, {})
    assert differences(records) == []
    assert tied_with_best(records) == {summary.cell: {"vanilla"}}
    assert ranks(records) == []
    assert tied_with_best(records[2:]) == {summary.cell: set()}


def test_a_score_that_is_zero_is_one(build_records: Build) -> None:
    assert only(differences(build_records({"vanilla": [0, 0], "other": [0, 2]}))).mean == 1


def test_metrics_may_differ_between_cells_and_not_in_one(build_records: Build) -> None:
    photos, scans = build_records(gaps(1, 2)), build_records(gaps(3, 4), data="scans", score="mean_auc")
    assert [s.score for s in summarize(photos + scans)] == ["top1", "top1", "mean_auc", "mean_auc"]
    mixed = [*photos, *build_records({"third": [80]}, score="mean_auc")]
    with pytest.raises(ValueError, match=r"one metric .* top1 \(runs/photos-vanilla-15-0\) and mean_auc \(runs/photos"):
        summarize(mixed)


def test_two_runs_that_differ_under_one_label_are_refused(build_records: Build) -> None:
    records = build_records(gaps(1, 2))
    moved = replace(records[0], run="elsewhere/run")
    assert differences([*records, moved]) == differences(records)  # a copy
    other = build_records({"vanilla": [49.5]})[0]
    for statistics in (summarize, differences, tied_with_best, marks, ranks, friedman):
        with pytest.raises(ValueError, match=r"one run for .* runs/photos-vanilla-15-0 \(50.0\) and again \(49.5\)"):
            statistics([*records, replace(other, run="again")])


def test_tied_are_those_that_are_not_significantly_worse(build_records: Build) -> None:
    best = [70.0, 71, 72, 70.5, 71.5]
    scores = {
        "worse": [b - g for b, g in zip(best, [5, 5.1, 4.9, 5.2, 4.8], strict=True)],
        "near": [b - g for b, g in zip(best, [0.5, -0.4, 0.3, -0.2, 0.1], strict=True)],
        "best": best,
    }
    (tied,) = tied_with_best(build_records(scores)).values()
    assert tied == {"best", "near"}


def test_tied_is_after_holm(build_records: Build) -> None:
    worse = [70 - gap for gap in (0.7, 1.0, 1.3)]
    assert 0.025 < p_of_three(0.7, 1.0, 1.3) < 0.05
    (alone,) = tied_with_best(build_records({"best": [70.0] * 3, "worse": worse})).values()
    assert alone == {"best"}
    (among,) = tied_with_best(build_records({"best": [70.0] * 3, "worse": worse, "near": [71, 70, 68]})).values()
    assert among == {"best", "worse", "near"}


def test_what_is_better_on_common_repetitions_is_tied_though_its_mean_is_lower(build_records: Build) -> None:
    records = build_records({"best": [90, 70, 70, 70], "other": [..., 71.0, 71.1, 71.2]})
    assert differences(records, "best")[0].p_holm < 0.05  # type: ignore[operator]
    (tied,) = tied_with_best(records).values()
    assert tied == {"best", "other"}


def test_equals_are_tied_even_with_one_run(build_records: Build) -> None:
    (tied,) = tied_with_best(build_records({"a": [70], "b": [70], "c": [69]})).values()
    assert tied == {"a", "b"}


def test_ranks_by_hand(build_records: Build) -> None:
    """3, 2, 1 and 1.5, 1.5, 3; the repetitions that one of them misses are no blocks."""
    records = build_records({"a": [70, 1, 2], "b": [71, 3, ...], "c": [72, None, 9]})
    records += build_records({"a": [70], "b": [70], "c": [69]}, rate=30)
    records += build_records({"a": [1], "b": [9]}, rate=50)
    assert ranks(records) == [Rank("b", 1.75, 2), Rank("c", 2.0, 2), Rank("a", 2.25, 2)]


def test_friedman_by_hand(build_records: Build) -> None:
    """12 / (4 * 3 * 4) * (4^2 + 8^2 + 12^2) - 3 * 4 * 4 = 8; chi-squared with 2 degrees of freedom: exp(-8 / 2)."""
    records = build_records({"a": [3, 6, 9, 12], "b": [2, 5, 8, 11], "c": [1, 4, 7, 10]})
    assert friedman(records) == pytest.approx(math.exp(-4))


@pytest.mark.parametrize(
    "scores",
    [{"a": [1, 2], "b": [2, 1]}, {"a": [1], "b": [2], "c": [3]}, {"a": [1, 2], "b": [1, 2], "c": [1, 2]}],
    ids=["two variants", "one block", "all alike"],
)
def test_friedman_has_no_answer(scores: dict[str, list[float]], build_records: Build) -> None:
    assert friedman(build_records(scores)) is None
