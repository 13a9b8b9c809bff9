"""The content of a page, collected from records and run directories before anything is rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stochnorm.report.page.cases import choose
from stochnorm.report.page.charts import Style, styles
from stochnorm.report.page.details import Details, details_of, read_history
from stochnorm.report.page.overview import Overview, overview
from stochnorm.report.page.thumbnails import Album
from stochnorm.runs.directory import Run
from stochnorm.runs.records import Failure, Record

__all__ = ["Content", "gather"]

_NO_TEST = (
    "No run has a test split: these are validation scores, which also chose the checkpoints, so they are optimistic."
)


@dataclass(frozen=True)
class Content:
    """The runs of a page with everything that was read about them."""

    records: Sequence[Record]
    failures: Sequence[Failure]
    reference: str
    """The variant with which others are compared; it may have no run."""
    notes: list[str]
    """Remarks for the header."""
    view: Overview | None
    """All runs together; None with fewer than two."""
    details: list[Details]
    rule: str
    """Rule by which the runs in detail were chosen, in words."""
    style: dict[str, Style]
    """The look of each variant."""
    images: list[str]
    """Thumbnails, as data URIs."""


def gather(
    records: Sequence[Record], *, root: Path, failures: Sequence[Failure], reference: str, notes: Sequence[str]
) -> Content:
    """Collect the content of a page.

    Raises:
        ValueError: As [stochnorm.report.statistics.summarize][].
    """
    compared, remarks = _compared(records)
    view = overview(compared, reference) if len(records) > 1 else None
    shown = choose(records, view.best if view else {}, reference)
    histories = {
        record.cell: read_history(Run(root / record.run))
        for record in shown.records
        if view and record.variant == reference
    }
    album = Album()
    details = [
        details_of(
            record,
            f"run-{number}",
            root,
            album,
            histories.get(record.cell, []) if record.variant != reference else [],
        )
        for number, record in enumerate(shown.records)
    ]
    return Content(
        records=records,
        failures=failures,
        reference=reference,
        notes=[*notes, *remarks],
        view=view,
        details=details,
        rule=shown.rule,
        style=styles(view.variants, reference) if view else {r.variant: Style("var(--s1)", "circle") for r in records},
        images=album.images,
    )


def _compared(records: Sequence[Record]) -> tuple[Sequence[Record], list[str]]:
    """Return the records to compare, by validation scores if none has a test score, and what to say about that."""
    without = sum(record.test is None for record in records)
    if len(records) < 2 or not without:
        return records, []
    if without == len(records):
        return [replace(record, test=record.validation) for record in records], [_NO_TEST]
    return records, [f"{without} of {len(records)} runs have no test split and are left out of the tables."]
