"""The page of images whose labels a model finds unlikely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stochnorm.report.gallery.gallery import Card, Figure, Gallery, Picture, Section, format_gallery
from stochnorm.runs.doubts import Doubt, Doubts
from stochnorm.text import count

__all__ = ["format_doubts"]

_MOST = 60  # pictures of a section
_NONE = "no finding"


def format_doubts(doubts: Doubts, *, csv: str = "labels.csv") -> str:
    """Return the page on the labels of a run's images.

    Args:
        doubts: The labels, the least likely first.
        csv: Name of the file with all of them.
    """
    root = doubts.source.root
    images, suspected, hard = len(doubts.doubts), doubts.suspected, doubts.hard
    how = f"{doubts.folds} folds" if doubts.folds else "test images only: finetune --folds 5 predicts all of them"
    share = f"{100 * len(suspected) / images:.1f} % of them" if images else ""
    sections = [
        _section(
            "suspected",
            "Labels to check",
            "The model is confident of another class, as confident as it is on average where that class is the label. "
            "Not every one is wrong: look, and decide.",
            root,
            suspected,
            csv,
            _pairs(suspected),
        ),
        _section(
            "hard",
            "Hard images",
            "Their label is unlikely, but nothing else is likely either: unusual or unclear images, or too few like "
            "them.",
            root,
            hard,
            csv,
        ),
    ]
    return format_gallery(
        Gallery(
            eyebrow="Labels that a model finds unlikely",
            title=doubts.name,
            lead=f"Each image was predicted by a model that has not seen it. {count(len(suspected), 'label')} may be "
            f"wrong. Correct them in {csv}, which finetune reads as its data.",
            figures=[
                Figure("Images predicted", f"{images:,}", how),
                Figure("Labels to check", f"{len(suspected):,}", share),
                Figure("Hard images", f"{len(hard):,}", "predicted otherwise, without confidence"),
            ],
            sections=[section for section in sections if section.cards],
            notes=[
                "Labels to check: confident learning (Northcutt, Jiang and Chuang, 2021), by the probability of the "
                "given label. The model learned from the same labels, so a mistake that is common is not found."
            ],
        )
    )


def _section(
    id: str, title: str, about: str, root: Path, doubts: Sequence[Doubt], csv: str, lines: Sequence[str] = ()
) -> Section:
    return Section(
        id=id,
        title=f"{title} ({len(doubts):,})",
        about=about,
        cards=[_card(root, doubt) for doubt in doubts[:_MOST]],
        lines=lines,
        more=f"{len(doubts) - _MOST:,} more in {csv}." if len(doubts) > _MOST else "",
    )


def _card(root: Path, doubt: Doubt) -> Card:
    text = f"{100 * doubt.confidence:.0f} % likely, maybe {doubt.suggested or _NONE}"
    return Card([Picture(root / doubt.row.path, doubt.row.path, [doubt.row.label or _NONE])], text)


def _pairs(doubts: Sequence[Doubt]) -> list[str]:
    """Return the pairs of labels that are most often in doubt."""
    pairs = Counter((doubt.row.label or _NONE, doubt.suggested or _NONE) for doubt in doubts)
    return [f"{given}, maybe {other}: {count(n, 'image')}" for (given, other), n in pairs.most_common(5) if n > 1]
