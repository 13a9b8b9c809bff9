"""The inventory of labelled images on disk, and its text."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stochnorm.data.copies import warnings_of
from stochnorm.data.folder import files_below, images_in, is_file
from stochnorm.data.images.decoding.formats import extensions
from stochnorm.data.manifest import Source, findings
from stochnorm.text import count, some, tally

__all__ = ["Report", "counts", "image_paths", "report_of", "too_few_classes"]


@dataclass(frozen=True)
class Report:
    """The inventory of a data set, compared with the official counts."""

    dataset: str
    """Title of the data set."""
    root: Path
    """Folder or file of the data set."""
    found: dict[str, int]
    """Counts of classes, images and splits on disk."""
    official: dict[str, int] = field(default_factory=dict)
    """The official counts; empty if none are published."""
    missing: tuple[str, ...] = ()
    """Listed images without a file."""
    surplus: tuple[str, ...] = ()
    """Image files that are not listed."""
    problems: tuple[str, ...] = ()
    """Missing, unreadable or contradictory lists, and other deviations from the official set."""
    notes: tuple[str, ...] = ()
    """What is wrong with the images and does not keep them from being trained on, such as copies in two splits."""

    @property
    def differences(self) -> list[str]:
        """Counts that differ from the official ones."""
        return [f"{self.found[k]:,} of {n:,} {k}" for k, n in self.official.items() if self.found.get(k, n) != n]

    @property
    def ok(self) -> bool:
        """True if the data set is complete and, if it is a published one, has no other images."""
        return not (self.differences or self.missing or self.problems or (self.official and self.surplus))

    def lines(self) -> list[str]:
        """Return the inventory as lines of text, the title first."""
        incomplete = "not the official set" if self.official else "cannot be trained on yet"
        lines = [
            f"{self.dataset} in {self.root}: {'complete' if self.ok else incomplete}",
            f"found {tally(self.found) or 'nothing'}",
        ]
        if self.differences:
            lines.append(f"counts differ: {', '.join(self.differences)}")
        if self.missing:
            lines.append(f"no file for {count(len(self.missing), 'listed image')}: {some(self.missing)}")
        if self.surplus:
            lines.append(f"{count(len(self.surplus), 'image file')} not listed: {some(self.surplus)}")
        return lines + list(self.problems) + [f"warning: {note}" for note in self.notes]


def report_of(source: Source, title: str) -> Report:
    """Make the inventory of a source without official counts; image files next to listed ones are surplus."""
    listed = {row.path for row in source.rows}
    folders = {path.parent for path in (source.root / name for name in listed) if path.parent.is_dir()}
    images = (image for folder in folders for image in images_in(folder))
    surplus = {image.relative_to(source.root).as_posix() for image in images} - listed
    missing = [path for path in listed if not (source.root / path).is_file()]
    problems = tuple(filter(None, [too_few_classes(source)]))
    missing, notes = sorted(missing), warnings_of(source.root, source.rows)
    return Report(
        title, source.root, counts(source), {}, tuple(missing), tuple(sorted(surplus)), problems, tuple(notes)
    )


def too_few_classes(source: Source) -> str:
    """Return why a source has too few classes to train on; empty if it has enough."""
    if source.multi_label:
        return "" if source.classes else "no image has a finding"
    few = len(source.classes) < 2
    return f"classification needs at least 2 classes, found only {source.classes[0]!r}" if few else ""


def counts(source: Source) -> dict[str, int]:
    """Count classes with images, images, groups if there are any, and the images of each split if there are splits."""
    splits = Counter(row.split for row in source.rows)
    labels = {row.label for row in source.rows}
    if source.multi_label:
        labels = {name for label in labels for name in findings(label)}
    found = {"classes": sum(name in labels for name in source.classes), "images": len(source.rows)}
    groups = {row.group for row in source.rows if row.group}
    if groups:
        found["groups"] = len(groups)
    return found | ({} if set(splits) == {""} else {split: splits[split] for split in ("train", "val", "test")})


def image_paths(root: Path, folders: Sequence[str] = (".",)) -> set[str]:
    """Return the paths of the image files in folders of a root and below, relative to it, with forward slashes."""
    above = len(str(root / "_")) - 1  # length of root's part of a path; relative_to is slow for 100,000 images
    return {
        file.path[above:].replace(os.sep, "/")
        for folder in folders
        if (root / folder).is_dir()
        for file in files_below(root / folder)
        if is_file(file) and posixpath.splitext(file.name)[1].lower() in extensions()
    }
