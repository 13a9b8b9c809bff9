"""The content of the tables in every format: numbers and marks, names of columns, legends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
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
    "Row",
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


class Row(NamedTuple):
    """One variant in one cell."""

    summary: Summary
    gain: Difference | None
    """Difference to the reference."""
    mark: Mark
    ece: float | None
    """Expected calibration error, mean over the runs."""


class Entry(NamedTuple):
    """One variant in one cell, in words."""

    value: str = "-"
    """Mean and standard deviation."""
    n: str = ""
    mark: Mark = ""

    def marked(self, marks: dict[str, str], escape: Any) -> str:
        """Return mean, standard deviation and n, marked in the table's own syntax."""
        return f"{marks[self.mark].format(escape(self.value))} {self.n}".rstrip()


class Results(NamedTuple):
    """A table of results: cells are columns, variants are rows."""

    measure: str
    """Name of the score."""
    names: dict[Cell, str]
    """Names of the columns, in order."""
    variants: list[str]
    """The reference first, the others in order of appearance."""
    rows: list[Row]
    """In the order of columns, then variants."""
    reference: str
    warning: str
    """For titles: which runs are no real experiment."""

    @property
    def differences(self) -> list[Difference]:
        """The differences to the reference."""
        return [row.gain for row in self.rows if row.gain]

    @property
    def compared(self) -> bool:
        """True if some column has a best among several."""
        return any(row.mark for row in self.rows)

    @property
    def notes(self) -> list[str]:
        """Remarks that help to read the numbers."""
        counts = [
            {row.summary.n for row in self.rows if row.summary.cell == cell and row.summary.n} for cell in self.names
        ]
        notes = []
        if any(1 in found for found in counts):
            notes.append("n = 1: no spread and no test, so what is tied with the best is not known.")
        if any(len(found) > 1 for found in counts):
            notes.append("Where n differs, means are over different repetitions: read the paired differences.")
        if any(entry.value == "-" for _, line in self.lines() for entry in line):
            notes.append("-: no run, or no test score.")
        return notes

    def lines(self) -> Iterator[tuple[str, list[Entry]]]:
        """Yield each variant with its entry in every column."""
        entries = self.entries()
        for variant in self.variants:
            yield variant, [entries.get((variant, cell), Entry()) for cell in self.names]

    def entries(self) -> dict[tuple[str, Cell], Entry]:
        """Return the entries of the table by variant and cell; without those that have no score."""
        return {
            (row.summary.variant, row.summary.cell): _entry(row) for row in self.rows if row.summary.mean is not None
        }


def _entry(row: Row) -> Entry:
    s = row.summary
    spread = "" if s.std is None else f" ± {s.std:.2f}"
    return Entry(f"{s.mean:.2f}{spread}", f"({s.n})", row.mark)


def collect(records: Sequence[Record], reference: str) -> Results:
    """Return the results of the runs and their differences to the reference.

    Raises:
        ValueError: As [stochnorm.report.statistics.summarize][].
    """
    summaries = summarize(records)
    variants = sorted(dict.fromkeys(s.variant for s in summaries), key=lambda variant: variant != reference)
    scores = {s.cell: SCORES[s.score].title if s.score in SCORES else s.score for s in summaries}
    one = len(set(scores.values())) == 1
    measure = f"Test {next(iter(scores.values()))}" if one else "Test score"
    names = _names(scores, scored=not one)
    place = {key: i for i, key in enumerate((cell, variant) for cell in names for variant in variants)}
    rows = sorted(_rows(records, summaries, reference), key=lambda row: place[row.summary.cell, row.summary.variant])
    return Results(measure, names, variants, rows, reference, _warning(records))


def _rows(records: Sequence[Record], summaries: Sequence[Summary], reference: str) -> list[Row]:
    marked = marks(records)
    gains = {(d.cell, d.variant): d for d in differences(records, reference)}
    errors: dict[tuple[Cell, str], list[float]] = defaultdict(list)
    for record in records:
        ece = (record.test or {}).get("ece")
        errors[record.cell, record.variant] += [] if ece is None else [ece]
    return [
        Row(s, gains.get(key), marked.get(key, ""), fmean(errors[key]) if errors[key] else None)
        for s in summaries
        for key in [(s.cell, s.variant)]
    ]


def _names(scores: dict[Cell, str], *, scored: bool) -> dict[Cell, str]:
    """Name the cells, in the order of columns: data sets and backbones as they appear, rates from low to high."""
    data = list(dict.fromkeys(cell.data for cell in scores))
    backbones = list(dict.fromkeys(cell.backbone for cell in scores))
    return {
        cell: f"{cell.data} {cell.rate:g} %"
        + (f", {cell.backbone}" if len(backbones) > 1 else "")
        + (f", {scores[cell]}" if scored else "")
        for cell in sorted(scores, key=lambda c: (data.index(c.data), backbones.index(c.backbone), c.rate))
    }


def difference_rows(results: Results) -> list[list[str]]:
    """Return a line per difference, with the columns of DIFFERENCES."""
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
    """Name the scales at which runs are no real experiment; empty if there are none."""
    return ", ".join(sorted({record.scale for record in records if record.scale}))


def _warning(records: Sequence[Record]) -> str:
    scale = scales(records)
    partly = "" if all(record.scale for record in records) else "partly "
    return f" ({partly}{scale} scale: no result)" if scale else ""
