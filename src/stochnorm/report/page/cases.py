"""The runs that the page shows in detail: their selection, and the cases among which a reader chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stochnorm.report.page.charts import Figure, Style
from stochnorm.report.page.details import Details
from stochnorm.report.page.run_charts import curve_figure
from stochnorm.runs.records import Cell, Record

__all__ = ["MOST", "Case", "Shown", "cases", "choose"]

MOST = 100
"""Maximum number of runs that a page shows in detail."""


class Shown(NamedTuple):
    """The runs that are shown in detail."""

    records: list[Record]
    rule: str
    """Rule by which they were chosen, in words."""


class Case(NamedTuple):
    """One choice among the runs in detail: a data set, backbone and sampling rate."""

    id: str
    """Name of its figure."""
    name: str
    cell: Cell
    variants: list[str]
    """Methods that have curves."""
    figure: Figure | None
    """The methods' curves side by side; None with fewer than two."""


def choose(records: Sequence[Record], best: Mapping[Cell, str], reference: str) -> Shown:
    """Choose the runs to show: the first of each variant of a cell; of too many, the best method and the reference.

    Args:
        records: All runs.
        best: The variant of the best mean, by cell.
        reference: The variant with which others are compared.
    """
    first: dict[tuple[Cell, str], Record] = {}
    for record in records:
        first.setdefault((record.cell, record.variant), record)
    if len(first) == len(records) <= MOST:
        return Shown(list(first.values()), "Every run is shown.")
    if len(first) <= MOST:
        return Shown(list(first.values()), "The first repeat of each method is shown.")
    few = [record for (cell, variant), record in first.items() if variant in (best.get(cell), reference)]
    rule = f"The first repeat of the best method and of {reference} is shown, out of {len(records):,} runs"
    if len(few) > MOST:
        rule += f"; {MOST} of the {len(few):,} runs that this rule gives"
    return Shown(few[:MOST], rule + ".")


def cases(details: Sequence[Details], style: Mapping[str, Style]) -> list[Case]:
    """Return the cases that have runs in detail, with their methods' validation scores side by side."""
    cells = list(dict.fromkeys(d.record.cell for d in details))
    backbones = len({cell.backbone for cell in cells}) > 1
    found = []
    for number, cell in enumerate(cells):
        curves = {
            d.record.variant: (
                [validation["step"] for validation in d.history],
                [validation.get(f"val_{d.record.score}") for validation in d.history],
                style[d.record.variant],
            )
            for d in details
            if d.record.cell == cell and d.history
        }
        figure = curve_figure(curves, percent=True) if len(curves) > 1 else None
        name = f"{cell.data} at {cell.rate:g} %" + (f", {cell.backbone}" if backbones else "")
        found.append(Case(f"case-{number}", name, cell, list(curves), figure))
    return found
