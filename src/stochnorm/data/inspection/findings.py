"""What an inspection finds: kinds, and one row for each finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stochnorm.data.manifest import Row
from stochnorm.spreadsheet import format_csv

__all__ = ["KINDS", "Finding", "Kind", "format_findings"]


class Kind(NamedTuple):
    """A kind of finding, in words."""

    title: str
    """Its name as a heading."""
    advice: str
    """What it means, and what to do."""


KINDS = {
    "unreadable": Kind(
        "Files that cannot be read", "Training skips them. Replace or remove them, so that the counts are right."
    ),
    "leak": Kind(
        "Copies across splits",
        "An image of one split is (nearly) an image of another, so a model is tested on what it has seen. Remove one, "
        "or keep them in one split with a column group.",
    ),
    "contradiction": Kind(
        "Copies under several classes",
        "An image and its (near) copy have two labels. One of them is wrong, or a small detail tells the images apart.",
    ),
    "duplicate": Kind(
        "Copies within a class",
        "They count twice, and a random split may put one into training and one into the test. Keep one, or give them "
        "one group.",
    ),
    "hidden": Kind(
        "Hidden by transparency", "Transparency hides all of the image, so training sees white. Export it without."
    ),
    "blank": Kind("Blank images", "They have one colour. Remove them, unless blank is what their class means."),
    "dark": Kind("Dark images", "99 % of the pixels are darker than a quarter of full brightness."),
    "blurred": Kind(
        "Blurred images",
        "Their sharpest edges are about half as steep as those of the other images, at 256 pixels. Look whether you "
        "can tell the class.",
    ),
    "odd-size": Kind(
        "Small images", "Their shorter side is below a quarter of the median, or 32 pixels where most are larger."
    ),
    "odd-shape": Kind(
        "Unusual shapes",
        "They are more than twice as elongated as the median image; training squashes them into a square. See --fit.",
    ),
    "small-class": Kind("Small classes", "With fewer than 10 images, little can be learned or measured."),
    "imbalance": Kind(
        "Imbalance",
        "Top-1 accuracy hides small classes. Train with --balance, and read macro F1 and the accuracy of each class.",
    ),
    "shortcut": Kind(
        "What tells classes or splits apart besides the picture",
        "The camera, the format or the size of the files nearly gives away the class or the split. A model may learn "
        "that instead of the content, and fail on files from elsewhere.",
    ),
}
"""The kinds of findings, the most important first."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a set of images, or odd."""

    kind: str
    """One of KINDS."""
    value: str
    """What was measured, in words."""
    image: Row | None = None
    """The image; None: the finding is about the whole set."""
    other: Row | None = None
    """The image that it is like."""


def format_findings(findings: Sequence[Finding]) -> str:
    """Return findings as CSV text, a row each.

    Example:
        >>> print(format_findings([Finding("blank", "one colour", Row("a.png", "red"))]).strip())
        kind,path,other path,value,label,other label,split,other split
        blank,a.png,,one colour,red,,,
    """
    rows = [["kind", "path", "other path", "value", "label", "other label", "split", "other split"]]
    for finding in findings:
        image, other = (row or Row("", "") for row in (finding.image, finding.other))
        rows.append(
            [finding.kind, image.path, other.path, finding.value, image.label, other.label, image.split, other.split]
        )
    return format_csv(rows)
