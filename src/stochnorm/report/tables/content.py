"""What the tables say whatever their form: numbers and marks, names of columns, legends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from stochnorm.report.statistics import Difference, Mark, Summary, differences, marks, summarize
from stochnorm.runs.records import Cell, Record
from stochnorm.runs.scores import SCORES
from stochnorm.text import format_p, interval

__all__ = [
    "DIFFERENCES",
    "ENTRY",
    "MEANING",
    "TIED",
    "UNDONE",
    "Entry",
    "Results",
    "collect",
    "difference_rows",
    "scales",
]

ENTRY = "mean ± standard deviation (n runs)"
TIED = "not significantly worse than it (paired t-test over common seeds, Holm, 5 %)"
MEANING = (
    "Paired over common seeds; interval and p (t) by Student's t; Holm's correction is for the variants of one data "
    "set, backbone and rate; p (permutation) is at least 2 / 2^n."
)
DIFFERENCES = ("data", "variant", "difference", "95 % interval", "p (t)", "p (permutation)", "p (Holm)", "n")
UNDONE = "No run is finished."


class Entry(NamedTuple):
    """One variant in one cell."""

    value: str = "-"
    """Mean and standard deviation."""
    n: str = ""
    mark: Mark = ""

    def marked(self, marks: dict[str, str], escape: Any) -> str:
        return f"{marks[self.mark].format(escape(self.value))} {self.n}".rstrip()


class Results(NamedTuple):
    """A table of results: cells are columns, variants are rows."""

    measure: str
    """What the numbers are."""
    names: dict[Cell, str]
    """Of the columns, in order."""
    variants: list[str]
    """The reference first, others as they came."""
    entries: dict[tuple[str, Cell], Entry]
    summaries: list[Summary]
    reference: str
    differences: list[Difference]
    """In the order of columns and rows."""
    warning: str
    """For titles: that the runs, or some of them, are no real experiment."""

    @property
    def compared(self) -> bool:
        """Whether there is a best among several."""
        return any(entry.mark for entry in self.entries.values())

    @property
    def notes(self) -> list[str]:
        """What else is to know to read the numbers."""
        counts = [{s.n for s in self.summaries if s.cell == cell and s.n} for cell in self.names]
        notes = []
        if any(1 in found for found in counts):
            notes.append("n = 1: no spread and no test, so what is tied with the best is not known.")
        if any(len(found) > 1 for found in counts):
            notes.append("Where n differs, means are over other repetitions: read the paired differences.")
        if any(entry.value == "-" for _, row in self.rows() for entry in row):
            notes.append("-: no run, or no test score.")
        return notes

    def rows(self) -> Iterator[tuple[str, list[Entry]]]:
        for variant in self.variants:
            yield variant, [self.entry(variant, cell) for cell in self.names]

    def entry(self, variant: str, cell: Cell) -> Entry:
        return self.entries.get((variant, cell), Entry())


def collect(records: Sequence[Record], reference: str) -> Results:
    """Results of the runs, and differences to the reference.

    Raises:
        ValueError: As :func:`stochnorm.report.statistics.summarize`.
    """
    summaries = summarize(records)
    variants = sorted(dict.fromkeys(s.variant for s in summaries), key=lambda variant: variant != reference)
    scores = {s.cell: SCORES[s.score].title if s.score in SCORES else s.score for s in summaries}
    one = len(set(scores.values())) == 1
    marked = marks(records)
    entries = {}
    for s in summaries:
        if s.mean is not None:
            spread = "" if s.std is None else f" ± {s.std:.2f}"
            entries[s.variant, s.cell] = Entry(f"{s.mean:.2f}{spread}", f"({s.n})", marked.get((s.cell, s.variant), ""))
    measure = f"Test {next(iter(scores.values()))}" if one else "Test score"
    names = _names(scores, scored=not one)
    order = [(cell, variant) for cell in names for variant in variants]
    found = sorted(differences(records, reference), key=lambda d: order.index((d.cell, d.variant)))
    return Results(measure, names, variants, entries, summaries, reference, found, _warning(records))


def _names(scores: dict[Cell, str], *, scored: bool) -> dict[Cell, str]:
    """Of cells, in the order of columns: data sets and backbones as they came, rates from low to high."""
    data = list(dict.fromkeys(cell.data for cell in scores))
    backbones = list(dict.fromkeys(cell.backbone for cell in scores))
    return {
        cell: f"{cell.data} {cell.rate:g} %"
        + (f", {cell.backbone}" if len(backbones) > 1 else "")
        + (f", {scores[cell]}" if scored else "")
        for cell in sorted(scores, key=lambda c: (data.index(c.data), backbones.index(c.backbone), c.rate))
    }


def difference_rows(results: Results) -> list[list[str]]:
    """The columns of DIFFERENCES."""
    return [
        [
            results.names[d.cell],
            d.variant,
            f"{d.mean:+.2f}",
            "-" if d.interval is None else interval(d.interval, "+.2f"),
            *("-" if p is None else format_p(p) for p in (d.p_value, d.p_permutation, d.p_holm)),
            str(d.n),
        ]
        for d in results.differences
    ]


def scales(records: Iterable[Record]) -> str:
    """What makes the runs, or some of them, no real experiment."""
    return ", ".join(sorted({record.scale for record in records if record.scale}))


def _warning(records: Sequence[Record]) -> str:
    scale = scales(records)
    partly = "" if all(record.scale for record in records) else "partly "
    return f" ({partly}{scale} scale: no result)" if scale else ""
