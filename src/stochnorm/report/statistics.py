"""What several runs say of variants: means, paired differences with their tests, ranks; docs/statistics.md."""

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
"""Pairs; with fewer nothing is concluded."""

Mark = Literal["", "best", "tied"]

Repeat = tuple[int, int]
Values = dict[str, dict[Repeat, float]]


@dataclass(frozen=True)
class Summary:
    """The test score of one variant in one cell, in percent."""

    cell: Cell
    variant: str
    n: int
    """Runs that have a score."""
    mean: float | None
    """None with n = 0."""
    std: float | None
    """Over the runs, with n - 1 in the denominator; None with n < 2."""
    values: dict[Repeat, float]
    """By what pairs runs: (data_seed, seed)."""
    score: str
    """What it is: top1 or mean_auc."""


@dataclass(frozen=True)
class Difference:
    """A variant less the reference, in points of percent, over the repetitions that both have."""

    cell: Cell
    variant: str
    reference: str
    n: int
    """Pairs, at least 1. With one there is no test; the fields below are None."""
    mean: float
    interval: tuple[float, float] | None
    """95 %, of Student's t; None where all pairs differ by the same."""
    p_value: float | None
    """Two-sided, of the paired t-test; None where all pairs differ by the same."""
    p_permutation: float | None
    """Two-sided, of the test that flips the signs of the differences: at least 2 / 2^n."""
    p_holm: float | None
    """``p_value`` after Holm's correction for all variants of the cell that were tested."""


@dataclass(frozen=True)
class Rank:
    """How a variant stands among all, from 1, the best."""

    variant: str
    mean: float
    blocks: int
    """Repetitions of cells it was ranked in."""


def summarize(records: Iterable[Record]) -> list[Summary]:
    """Mean and standard deviation of each variant in each cell, in order of first appearance.

    Raises:
        ValueError: Runs of a cell are scored by different metrics, or two that differ stand under one label.
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
    """Each variant against the reference, paired over the repetitions that both have.

    Tests: paired t (Student 1908) and permutation of signs (Fisher 1935), the latter over all 2^n of them, or with
    more than 13 pairs over 9,999 drawn ones; the smallest p-value n pairs can reach is 2 / 2^n (n = 5: 0.0625). Holm's
    correction (1979) is for the variants of a cell, not for several cells.

    Args:
        records: Finished runs; those without a test score count for nothing.
        reference: Its label.

    Returns:
        In order of first appearance; nothing for a cell without the reference and for a variant without a common
        repetition.

    Raises:
        ValueError: As :func:`summarize`.
    """
    return [
        difference
        for cell, found in _by_cell(records).items()
        if reference in found
        for difference in _against(reference, cell, found)
    ]


def tied_with_best(records: Iterable[Record]) -> dict[Cell, set[str]]:
    """The variant with the best mean of each cell, and those that are not significantly worse.

    Worse is by the paired t-test against the best, with Holm's correction, at 5 %. Where there is no test because all
    pairs differ by the same, worse is not shown. With one pair nothing can be shown, so the variant is left out.

    Returns:
        By cell, in order of first appearance; empty sets where nothing has a score.

    Raises:
        ValueError: As :func:`summarize`.
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
    """Return what is best in its cell, and what is tied with it; nothing where a cell has one variant with a score.

    Raises:
        ValueError: As :func:`summarize`.
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
    """Mean rank of each variant over the blocks, repetitions of cells, in which every variant has a score.

    Equal scores share the mean of their ranks.

    Returns:
        The best first; nothing with fewer than two variants, or without such a block.

    Raises:
        ValueError: As :func:`summarize`.
    """
    variants, blocks = _blocks(records)
    if len(variants) < 2 or not blocks:
        return []
    means = np.mean([rankdata([-value for value in block]) for block in blocks], axis=0)
    found = [Rank(variant, float(mean), len(blocks)) for variant, mean in zip(variants, means, strict=True)]
    return sorted(found, key=lambda rank: rank.mean)


def friedman(records: Iterable[Record]) -> float | None:
    """The p-value of Friedman's test (1937) that all variants rank alike, over the blocks of :func:`ranks`.

    Its chi-squared distribution holds for many blocks (more than 10) that are independent, which the rates of one
    repetition are not quite, since a smaller rate's images are part of a larger one's.

    Returns:
        None with fewer than three variants or two blocks, or where all scores of every block are equal.

    Raises:
        ValueError: As :func:`summarize`.
    """
    variants, blocks = _blocks(records)
    if len(variants) < 3 or len(blocks) < 2 or all(len(set(block)) == 1 for block in blocks):
        return None
    return float(friedmanchisquare(*zip(*blocks, strict=True)).pvalue)


def significant(difference: Difference) -> bool:
    """Whether a difference is called one: after Holm's correction, and never from too few pairs."""
    return difference.n >= FEW and _differs(difference)


def _differs(difference: Difference) -> bool:
    return difference.p_holm is not None and difference.p_holm < LEVEL


def _worse(difference: Difference) -> bool:
    return difference.mean < 0 and _differs(difference)


def _by_cell(records: Iterable[Record]) -> dict[Cell, Values]:
    """Scores by cell, variant and repetition; a variant without any is there, and empty."""
    cells: dict[Cell, Values] = {}
    first: dict[Cell, Record] = {}
    seen: dict[tuple[Cell, str, Repeat], Record] = {}
    for record in records:
        other = first.setdefault(record.cell, record)
        if other.score != record.score:
            raise ValueError(
                f"runs of {_name(record.cell)} must be scored by one metric to be compared, got {other.score} "
                f"({other.run}) and {record.score} ({record.run}); leave one of them out"
            )
        twin = seen.setdefault((record.cell, record.variant, record.repeat), record)
        if twin.value != record.value:
            raise ValueError(
                f"{record.variant} on {_name(record.cell)} must have one run for data_seed {record.data_seed} and seed "
                f"{record.seed}, got {twin.run} ({twin.value}) and {record.run} ({record.value}); leave one out, or "
                "give them labels of their own if their settings differ"
            )
        values = cells.setdefault(record.cell, {}).setdefault(record.variant, {})
        if record.value is not None:
            values[record.repeat] = record.value
    return cells


def _against(reference: str, cell: Cell, found: Values) -> list[Difference]:
    """All other variants of a cell less one of them, with Holm's correction."""
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
    """The variants, and the scores of all of them wherever all have one."""
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
