"""The page on what an inspection of data found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stochnorm.data.inspection.findings import KINDS, Finding
from stochnorm.data.inspection.inspect import Inspection
from stochnorm.data.inventory import counts
from stochnorm.data.manifest import Row
from stochnorm.report.gallery.gallery import Card, Figure, Gallery, Picture, Section, format_gallery
from stochnorm.text import count, some, tally

__all__ = ["format_inspection"]

_MOST = 24  # cards of a section
_FIRST = "leak", "contradiction", "duplicate", "unreadable"  # have a figure at the top, also where there are none


def format_inspection(inspection: Inspection, *, csv: str = "findings.csv") -> str:
    """Return the page on an inspection, with the first findings of each kind as pictures.

    Args:
        inspection: What was found.
        csv: Name of the file that has all findings.
    """
    source = inspection.source
    found = inspection.counts
    absent = [KINDS[kind].title.lower() for kind in KINDS if kind not in found]
    notes = [f"Looked for and not found: {', '.join(absent)}."] if absent else []
    if inspection.cameras:
        named = [f"{name} ({count(n, 'image')})" for name, n in inspection.cameras.items()]
        notes.append(f"Cameras by EXIF: {some(named, 8)}.")
    figures = [Figure("Images", f"{len(source.rows):,}", tally(_without_images(inspection)))]
    figures += [Figure(_SHORT[kind], f"{found.get(kind, 0):,}", _NOTES[kind]) for kind in _FIRST]
    return format_gallery(
        Gallery(
            eyebrow="Inspection of the data, before training",
            title=inspection.name,
            lead=_lead(inspection),
            figures=figures,
            sections=[_section(inspection, kind, csv) for kind in found],
            notes=notes,
        )
    )


_SHORT = {"leak": "Leaks", "contradiction": "Contradictions", "duplicate": "Duplicates", "unreadable": "Unreadable"}
_NOTES = {
    "leak": "copies across splits",
    "contradiction": "copies under several classes",
    "duplicate": "copies within a class",
    "unreadable": "files",
}


def _without_images(inspection: Inspection) -> dict[str, int]:
    return {what: n for what, n in counts(inspection.source).items() if what != "images"}


def _lead(inspection: Inspection) -> str:
    found = inspection.counts
    if not found:
        return "Every image was looked at, and nothing wrong was found."
    worst = [kind for kind in _FIRST if kind in found]
    if worst:
        said = ", ".join(count(found[kind], "unreadable file" if kind == "unreadable" else kind) for kind in worst)
        return f"Decide about these before you train: {said}."
    return f"No copies and no unreadable files; {count(sum(found.values()), 'finding')} to look through."


def _section(inspection: Inspection, kind: str, csv: str) -> Section:
    findings = inspection.of(kind)
    pictured = kind != "unreadable" and findings[0].image is not None
    shown = findings[:_MOST] if pictured else []
    lines = [] if pictured else [_line(finding) for finding in findings]
    left = len(findings) - len(shown) - len(lines)
    return Section(
        id=kind,
        title=f"{KINDS[kind].title} ({len(findings):,})",
        about=KINDS[kind].advice,
        cards=[_card(inspection.source.root, finding) for finding in shown],
        lines=lines[:_MOST] + ([f"and {len(lines) - _MOST} more, in {csv}"] if len(lines) > _MOST else []),
        more=f"{left:,} more in {csv}." if left else "",
    )


def _line(finding: Finding) -> str:
    return finding.value if finding.image is None else f"{finding.image.path}: {finding.value}"


def _card(root: Path, finding: Finding) -> Card:
    rows: Sequence[Row] = [row for row in (finding.other, finding.image) if row is not None]
    pictures = [Picture(root / row.path, row.path, [tag for tag in (row.label, row.split) if tag]) for row in rows]
    return Card(pictures, finding.value)
