"""All runs together: marked tables, gains, ranks, cost, settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from stochnorm.report.page.settings import compare_settings
from stochnorm.report.statistics import friedman, ranks, significant
from stochnorm.report.tables.content import Row, collect
from stochnorm.runs.records import Cell, Record
from stochnorm.runs.scores import SCORES
from stochnorm.text import count, span

__all__ = ["Cost", "Group", "Overview", "Standing", "overview"]


@dataclass(frozen=True)
class Group:
    """The cells of one data set and backbone; they differ in the rate."""

    data: str
    backbone: str
    score: str
    rates: list[float]
    rows: dict[str, list[Row | None]]
    """An entry per rate, by variant."""
    images: str
    """Their numbers, in words."""


class Standing(NamedTuple):
    """One variant over all cells."""

    variant: str
    rank: float | None
    """Mean rank, 1 is the best; None where not all variants can be ranked together."""
    gain: float | None
    """Gain over the reference, mean over the cells."""
    best: int
    """Cells in which its mean is the best."""
    tied: int
    """Cells in which it is the best or tied with it."""
    better: int
    """Cells in which it is significantly better than the reference."""
    worse: int
    """Cells in which it is significantly worse."""


class Cost(NamedTuple):
    """Mean cost of a run of one variant."""

    variant: str
    seconds: float | None
    images_per_second: float | None
    memory: float | None
    """Peak memory in gigabytes."""
    relative: float | None
    """Seconds relative to the reference, mean over the cells."""


@dataclass(frozen=True)
class Overview:
    """All results of a comparison."""

    variants: list[str]
    """The reference first."""
    reference: str
    """Empty if it has no run."""
    rows: list[Row]
    groups: list[Group]
    standings: list[Standing]
    """The best first."""
    blocks: int
    """Number of repeats of cells over which ranks are averaged."""
    p_ranks: float | None
    """p of Friedman's test that all variants rank alike."""
    costs: list[Cost]
    shared: list[tuple[str, str]]
    """Settings that all runs share."""
    differing: dict[str, list[str]]
    """The value of each variant, by setting."""

    @property
    def best(self) -> dict[Cell, str]:
        """The variant with the best mean, by cell."""
        return {row.summary.cell: row.summary.variant for row in reversed(self.rows) if row.mark == "best"}

    @property
    def cells(self) -> list[Cell]:
        """The cells, in the order of the rows."""
        return list(dict.fromkeys(row.summary.cell for row in self.rows))


def overview(records: Sequence[Record], reference: str) -> Overview:
    """Collect everything that all runs together show.

    Raises:
        ValueError: As [stochnorm.report.statistics.summarize][].
    """
    results = collect(records, reference)
    variants, rows = results.variants, results.rows
    standing = ranks(records)
    shared, differing = compare_settings(records, variants)
    return Overview(
        variants=variants,
        reference=reference if reference in variants else "",
        rows=rows,
        groups=_groups(records, rows, variants),
        standings=_standings(rows, variants, {rank.variant: rank.mean for rank in standing}),
        blocks=standing[0].blocks if standing else 0,
        p_ranks=friedman(records),
        costs=_costs(records, variants, reference),
        shared=shared,
        differing=differing,
    )


def _groups(records: Sequence[Record], rows: Sequence[Row], variants: Sequence[str]) -> list[Group]:
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[row.summary.cell[:2]].append(row)
    counts: dict[tuple[str, str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        for split, n in record.images.items():
            counts[record.cell[:2]][split].add(n)
    classes = {record.cell[:2]: record.classes for record in records}
    groups = []
    for (data, backbone), inside in found.items():
        rates = sorted({row.summary.cell.rate for row in inside})
        by_place = {(row.summary.variant, row.summary.cell.rate): row for row in inside}
        table = {v: [by_place.get((v, rate)) for rate in rates] for v in variants}
        table = {v: entries for v, entries in table.items() if any(entries)}
        images = ", ".join(f"{span(n)} {split}" for split, n in counts[data, backbone].items())
        score = inside[0].summary.score
        words = f"{images} images, {count(classes[data, backbone], SCORES[score].label)}"
        groups.append(Group(data, backbone, score, rates, table, words))
    return groups


def _standings(rows: Sequence[Row], variants: Sequence[str], rank: Mapping[str, float]) -> list[Standing]:
    by_variant: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_variant[row.summary.variant].append(row)
    found = []
    for variant in variants:
        own = [row for row in by_variant[variant] if row.summary.n]
        gains = [row.gain for row in own if row.gain]
        shown = [gain for gain in gains if significant(gain)]
        found.append(
            Standing(
                variant,
                rank.get(variant),
                fmean(gain.mean for gain in gains) if gains else None,
                sum(row.mark == "best" for row in own),
                sum(row.mark != "" for row in own),
                sum(gain.mean > 0 for gain in shown),
                sum(gain.mean < 0 for gain in shown),
            )
        )
    return sorted(found, key=lambda s: (s.rank or 0.0, -(s.gain or 0.0)))


def _costs(records: Sequence[Record], variants: Sequence[str], reference: str) -> list[Cost]:
    seconds: dict[str, dict[Cell, list[float]]] = defaultdict(lambda: defaultdict(list))
    other: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        if (value := record.cost.get("seconds")) is not None:
            seconds[record.variant][record.cell].append(value)
        for name in ("images_per_second", "peak_memory_gigabytes"):
            if (value := record.cost.get(name)) is not None:
                other[record.variant, name].append(value)
    base = {cell: fmean(values) for cell, values in seconds[reference].items()}
    costs = []
    for variant in variants:
        own = seconds[variant]
        ratios = [fmean(values) / base[cell] for cell, values in own.items() if base.get(cell)]
        costs.append(
            Cost(
                variant,
                _mean([value for values in own.values() for value in values]),
                _mean(other[variant, "images_per_second"]),
                _mean(other[variant, "peak_memory_gigabytes"]),
                _mean(ratios),
            )
        )
    return costs


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
