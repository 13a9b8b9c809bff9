"""What the page says of all runs together: marked tables, gains, ranks, cost, settings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from stochnorm.methods.catalogue import concerns
from stochnorm.report.page.details import common, show
from stochnorm.report.statistics import friedman, ranks, significant
from stochnorm.report.tables.content import Row, collect
from stochnorm.runs.config import flat
from stochnorm.runs.records import Cell, Record
from stochnorm.runs.scores import SCORES
from stochnorm.text import DASH, count, span

__all__ = ["Cost", "Group", "Overview", "Standing", "environments", "overview"]

_AXES = {"data", "backbone", "rate", "data_seed", "seed"}  # of a grid; shown elsewhere


@dataclass(frozen=True)
class Group:
    """The cells of one data set and backbone; they differ in the rate."""

    data: str
    backbone: str
    score: str
    rates: list[float]
    rows: dict[str, list[Row | None]]
    """By variant, an entry per rate."""
    images: str
    """How many, in words."""


class Standing(NamedTuple):
    """How one variant does over all cells."""

    variant: str
    rank: float | None
    """Mean, from 1, the best; None where not all variants can be ranked together."""
    gain: float | None
    """Over the reference, mean over the cells."""
    best: int
    """Cells in which its mean is the best."""
    tied: int
    """Cells in which it is the best or tied with it."""
    better: int
    """Cells in which it is significantly better than the reference."""
    worse: int
    """Cells in which it is significantly worse."""
    cells: int


class Cost(NamedTuple):
    """What a run of one variant took, means."""

    variant: str
    seconds: float | None
    images_per_second: float | None
    memory: float | None
    """Peak, gigabytes."""
    relative: float | None
    """Seconds in those of the reference, mean over the cells."""


@dataclass(frozen=True)
class Overview:
    """All that the page says of a comparison."""

    variants: list[str]
    """The reference first."""
    reference: str
    """Empty where there is no run of it."""
    rows: list[Row]
    groups: list[Group]
    standings: list[Standing]
    """The best first."""
    blocks: int
    """Repeats of cells that the ranks are means over."""
    p_ranks: float | None
    """Of Friedman's test that all rank alike."""
    costs: list[Cost]
    common: list[tuple[str, str]]
    """Settings that all runs share."""
    differing: dict[str, list[str]]
    """By setting: its value of each variant."""

    @property
    def best(self) -> dict[Cell, str]:
        """The variant with the best mean, by cell."""
        return {row.summary.cell: row.summary.variant for row in reversed(self.rows) if row.mark == "best"}

    @property
    def cells(self) -> list[Cell]:
        return list(dict.fromkeys(row.summary.cell for row in self.rows))


def overview(records: Sequence[Record], reference: str) -> Overview:
    """What all runs together say.

    Raises:
        ValueError: As :func:`stochnorm.report.statistics.summarize`.
    """
    results = collect(records, reference)
    variants, rows = results.variants, results.rows
    standing = ranks(records)
    common_settings, differing = _settings(records, variants)
    return Overview(
        variants=variants,
        reference=reference if reference in variants else "",
        rows=rows,
        groups=_groups(records, rows, variants),
        standings=_standings(rows, variants, {rank.variant: rank.mean for rank in standing}),
        blocks=standing[0].blocks if standing else 0,
        p_ranks=friedman(records),
        costs=_costs(records, variants, reference),
        common=common_settings,
        differing=differing,
    )


def environments(records: Iterable[Record]) -> list[tuple[int, dict[str, str]]]:
    """The different environments with how many runs they had, the most frequent first."""
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        counts[json.dumps(record.environment, sort_keys=True)] += 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [(n, {k: show(v) for k, v in json.loads(text).items()}) for text, n in ordered]


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
                len(own),
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


def _settings(records: Sequence[Record], variants: Sequence[str]) -> tuple[list[tuple[str, str]], dict[str, list[str]]]:
    by_variant: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_variant[record.variant].append({k: v for k, v in flat(record.settings).items() if k not in _AXES})
    own = {variant: common(settings) for variant, settings in by_variant.items()}
    shared = common(own.values())
    names = list(dict.fromkeys(name for settings in own.values() for name in settings if name not in shared))
    differing = {name: [_own_setting(own[v], name) for v in variants] for name in names}
    if differing.get("method") == list(variants):  # said by their names
        del differing["method"]
    return [(name, show(value)) for name, value in shared.items()], differing


def _own_setting(settings: Mapping[str, Any], name: str) -> str:
    if "method" in settings and not concerns(name, settings["method"]):
        return DASH
    return show(settings[name]) if name in settings else "varies"
