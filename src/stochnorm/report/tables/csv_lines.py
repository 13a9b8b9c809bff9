"""A comparison as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stochnorm.report.statistics import differences, summarize
from stochnorm.report.tables.content import scales
from stochnorm.runs.records import Record
from stochnorm.spreadsheet import format_csv

__all__ = ["format_differences_csv", "format_results_csv"]


def format_results_csv(records: Sequence[Record]) -> str:
    """Return a line per cell and variant; mean and std in percent, empty if there is none."""
    header = ("data", "backbone", "rate", "variant", "score", "n", "mean", "std", "scale")
    rows = ((*s.cell, s.variant, s.score, s.n, s.mean, s.std, scales(records)) for s in summarize(records))
    return _csv(header, rows)


def format_differences_csv(records: Sequence[Record], reference: str = "vanilla") -> str:
    """Return a line per cell and variant except the reference; difference, low and high in percentage points."""
    header = (
        "data", "backbone", "rate", "variant", "reference", "n", "difference", "low", "high", "p_t", "p_permutation",
        "p_holm", "scale",
    )  # fmt: skip
    rows = (
        (*d.cell, d.variant, d.reference, d.n, d.mean, *(d.interval or (None, None)), d.p_value, d.p_permutation,
         d.p_holm, scales(records))
        for d in differences(records, reference)
    )  # fmt: skip
    return _csv(header, rows)


def _csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    return format_csv(
        [header, *([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)]
    )
