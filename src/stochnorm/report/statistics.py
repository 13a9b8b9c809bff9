"""Statistics of several runs: means, paired differences with their tests, ranks; see docs/statistics.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Literal

import numpy as np
from scipy.stats import friedmanchisquare, rankdata

from stochnorm.report.paired import LEVEL, holm, paired_tests
from stochnorm.runs.records import Cell, Record

__all__ = [
    "FEW",
    "Difference",
    "Mark",
    "Rank",
    "Summary",
    "differences",
    "friedman",
    "marks",
    "ranks",
    "significant",
    "summarize",
    "tied_with_best",
]

FEW = 3
"""Number of pairs below which nothing is concluded."""

Mark = Literal["", "best", "tied"]

Repeat = tuple[int, int]
Values = dict[str, dict[Repeat, float]]


@dataclass(frozen=True)
class Summary:
    """The test score of one variant in one cell, in percent."""

    cell: Cell
    variant: str
    n: int
    """Number of runs with a score."""
    mean: float | None
    """None with n = 0."""
    std: float | None
    """Standard deviation over the runs, with n - 1 in the denominator; None with n < 2."""
    values: dict[Repeat, float]
    """Scores by (data_seed, seed), which pair the runs."""
    score: str
    """Key of the score: top1 or mean_auc."""


@dataclass(frozen=True)
class Difference:
    """A variant minus the reference, in percentage points, over the repetitions that both have."""

    cell: Cell
    variant: str
    reference: str
    n: int
    """Number of pairs, at least 1. With one there is no test, and the fields below are None."""
    mean: float
    interval: tuple[float, float] | None
    """95 % interval by Student's t; None if all pairs differ by the same amount."""
    p_value: float | None
    """p of the two-sided paired t-test; None if all pairs differ by the same amount."""
    p_permutation: float | None
    """p of the two-sided test that flips the signs of the differences: at least 2 / 2^n."""
    p_holm: float | None
    """``p_value`` after Holm's correction for all tested variants of the cell."""


@dataclass(frozen=True)
class Rank:
    """The mean rank of a variant among all, 1 is the best."""

    variant: str
    mean: float
    blocks: int
    """Number of repetitions of cells in which it was ranked."""


def summarize(records: Iterable[Record]) -> list[Summary]:
    """Return mean and standard deviation of each variant in each cell, in order of first appearance.

    Raises:
        ValueError: Runs of a cell have different metrics, or two different runs have the same label.
    """
    records = list(records)
    scores = {record.cell: record.score for record in records}
    return [
        Summary(
            cell=cell,
            variant=variant,
            n=len(values),
            mean=fmean(values.values()) if values else None,
            std=stdev(values.values()) if len(values) > 1 else None,
            values=values,
            score=scores[cell],
        )
        for cell, found in _by_cell(records).items()
        for variant, values in found.items()
    ]


def differences(records: Iterable[Record], reference: str = "vanilla") -> list[Difference]:
    """Compare each variant with the reference, paired over the repetitions that both have.

    Tests: paired t (Student 1908) and permutation of signs (Fisher 1935), the latter over all 2^n of them, or with
    more than 13 pairs over 9,999 drawn ones; the smallest p-value n pairs can reach is 2 / 2^n (n = 5: 0.0625). Holm's
    correction (1979) is for the variants of a cell, not for several cells.

    Args:
        records: Finished runs; those without a test score are left out.
        reference: Label of the reference.

    Returns:
        The differences in order of first appearance; none for a cell without the reference or a variant without a
        common repetition.

    Raises:
        ValueError: As [stochnorm.report.statistics.summarize][].
    """
    return [
        difference
        for cell, found in _by_cell(records).items()
        if reference in found
        for difference in _against(reference, cell, found)
    ]


def tied_with_best(records: Iterable[Record]) -> dict[Cell, set[str]]:
    """Return the variant with the best mean of each cell and those that are not significantly worse.

    "Worse" is decided by the paired t-test against the best, with Holm's correction, at 5 %. A variant without a test,
    because all pairs differ by the same amount, counts as tied. With one pair there is no evidence, so the variant is
    left out.

    Returns:
        The variants by cell, in order of first appearance; an empty set for a cell without a score.

    Raises:
        ValueError: As [stochnorm.report.statistics.summarize][].
    """
    tied: dict[Cell, set[str]] = {}
    for cell, found in _by_cell(records).items():
        means = {variant: fmean(values.values()) for variant, values in found.items() if values}
        tied[cell] = {variant for variant, mean in means.items() if mean == max(means.values())}
        if means:
            best = max(means, key=means.__getitem__)
            tied[cell] |= {d.variant for d in _against(best, cell, found) if d.n > 1 and not _worse(d)}
    return tied


def marks(records: Iterable[Record]) -> dict[tuple[Cell, str], Mark]:
    """Mark the best variant of each cell and those tied with it; none in a cell with one scored variant.

    Raises:
        ValueError: As [stochnorm.report.statistics.summarize][].
    """
    records = list(records)
    tied = tied_with_best(records)
    found: dict[tuple[Cell, str], Mark] = {}
    for cell, values in _by_cell(records).items():
        means = {variant: fmean(scores.values()) for variant, scores in values.items() if scores}
        if len(means) > 1:
            best = max(means.values())
            found |= {(cell, v): "best" if mean == best else "tied" for v, mean in means.items() if v in tied[cell]}
    return found


def ranks(records: Iterable[Record]) -> list[Rank]:
    """Return the mean rank of each variant over the blocks: repetitions of cells in which every variant has a score.

    Equal scores share the mean of their ranks.

    Returns:
        The ranks, the best first; none with fewer than two variants or without such a block.

    Raises:
        ValueError: As [stochnorm.report.statistics.summarize][].
    """
    variants, blocks = _blocks(records)
    if len(variants) < 2 or not blocks:
        return []
    means = np.mean([rankdata([-value for value in block]) for block in blocks], axis=0)
    found = [Rank(variant, float(mean), len(blocks)) for variant, mean in zip(variants, means, strict=True)]
    return sorted(found, key=lambda rank: rank.mean)


def friedman(records: Iterable[Record]) -> float | None:
    """Return the p-value of Friedman's test (1937) that all variants rank alike, over the blocks of ``ranks``.

    Its chi-squared distribution holds for many blocks (more than 10) that are independent, which the rates of one
    repetition are not quite, since a smaller rate's images are part of a larger one's.

    Returns:
        The p-value; None with fewer than three variants or two blocks, or if all scores of every block are equal.

    Raises:
        ValueError: As [stochnorm.report.statistics.summarize][].
    """
    variants, blocks = _blocks(records)
    if len(variants) < 3 or len(blocks) < 2 or all(len(set(block)) == 1 for block in blocks):
        return None
    return float(friedmanchisquare(*zip(*blocks, strict=True)).pvalue)


def significant(difference: Difference) -> bool:
    """Return whether a difference is significant: after Holm's correction, and never with too few pairs."""
    return difference.n >= FEW and _differs(difference)


def _differs(difference: Difference) -> bool:
    return difference.p_holm is not None and difference.p_holm < LEVEL


def _worse(difference: Difference) -> bool:
    return difference.mean < 0 and _differs(difference)


def _by_cell(records: Iterable[Record]) -> dict[Cell, Values]:
    """Group the scores by cell, variant and repetition; a variant without any score is present and empty."""
    cells: dict[Cell, Values] = {}
    first: dict[Cell, Record] = {}
    seen: dict[tuple[Cell, str, Repeat], Record] = {}
    for record in records:
        other = first.setdefault(record.cell, record)
        if other.score != record.score:
            raise ValueError(
                f"runs of {_name(record.cell)} must be scored by one metric to be compared, got {other.score} "
                f"({other.run}) and {record.score} ({record.run}); leave one out"
            )
        twin = seen.setdefault((record.cell, record.variant, record.repeat), record)
        if twin.value != record.value:
            raise ValueError(
                f"{record.variant} on {_name(record.cell)} must have one run for data_seed {record.data_seed} and seed "
                f"{record.seed}, got {twin.run} ({twin.value}) and {record.run} ({record.value}); leave one out, or "
                "give them different labels if their settings differ"
            )
        values = cells.setdefault(record.cell, {}).setdefault(record.variant, {})
        if record.value is not None:
            values[record.repeat] = record.value
    return cells


def _against(reference: str, cell: Cell, found: Values) -> list[Difference]:
    """Compare all other variants of a cell with one of them, with Holm's correction."""
    compared = [
        _difference(cell, variant, reference, found)
        for variant in found
        if variant != reference and found[variant].keys() & found[reference].keys()
    ]
    corrected = iter(holm([d.p_value for d in compared if d.p_value is not None]))
    return [d if d.p_value is None else replace(d, p_holm=next(corrected)) for d in compared]


def _difference(cell: Cell, variant: str, reference: str, found: Values) -> Difference:
    pairs = tuple((value, found[reference][r]) for r, value in found[variant].items() if r in found[reference])
    mean = fmean(value - other for value, other in pairs)
    return Difference(cell, variant, reference, len(pairs), mean, *paired_tests(pairs), p_holm=None)


def _blocks(records: Iterable[Record]) -> tuple[list[str], list[Sequence[float]]]:
    """Return the variants, and the scores of each repetition in which all have one."""
    cells = _by_cell(records)
    variants = list(dict.fromkeys(variant for found in cells.values() for variant in found))
    blocks: list[Sequence[float]] = [
        [found[variant][repeat] for variant in variants]
        for found in cells.values()
        if all(variant in found for variant in variants)
        for repeat in found[variants[0]]
        if all(repeat in found[variant] for variant in variants)
    ]
    return variants, blocks


def _name(cell: Cell) -> str:
    return f"{cell.data} at {cell.rate:g} % with {cell.backbone}"
