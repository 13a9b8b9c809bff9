"""What was found of labelled images on disk, and how that is said."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stochnorm.data.folder import extensions, files_below, image_files
from stochnorm.data.manifest import Source, findings
from stochnorm.text import some, tally

__all__ = ["Report", "counts", "image_paths", "report_of", "too_few_classes"]


@dataclass(frozen=True)
class Report:
    """What was found of a data set, beside what is official."""

    dataset: str
    """Its title."""
    root: Path
    """Where it was looked for."""
    found: dict[str, int]
    official: dict[str, int] = field(default_factory=dict)
    """Empty where nobody published any."""
    missing: tuple[str, ...] = ()
    """Listed images without a file."""
    surplus: tuple[str, ...] = ()
    """Image files in no list."""
    problems: tuple[str, ...] = ()
    """Lists that are absent, cannot be read or contradict each other, and whatever else is not official."""

    @property
    def differences(self) -> list[str]:
        """Where the counts differ."""
        return [f"{self.found[k]:,} of {n:,} {k}" for k, n in self.official.items() if self.found.get(k, n) != n]

    @property
    def ok(self) -> bool:
        """Whether the data set is complete and, where it is official, nothing else is there."""
        return not (self.differences or self.missing or self.problems or (self.official and self.surplus))

    def lines(self) -> list[str]:
        """In words, the title first."""
        counted = tally(self.found) or "nothing"
        not_so = "not the official set" if self.official else "cannot be trained on as it is"
        lines = [f"{self.dataset} in {self.root}: {'complete' if self.ok else not_so}", f"found {counted}"]
        if self.differences:
            lines.append(f"counts differ: {', '.join(self.differences)}")
        if self.missing:
            lines.append(f"{len(self.missing):,} listed images have no file: {some(list(self.missing))}")
        if self.surplus:
            lines.append(f"{len(self.surplus):,} image files are in no list: {some(list(self.surplus))}")
        return lines + list(self.problems)


def report_of(source: Source, title: str) -> Report:
    """Of a source without official counts; surplus are the image files beside listed ones."""
    listed = {row.path for row in source.rows}
    folders = {path.parent for path in (source.root / name for name in listed) if path.parent.is_dir()}
    images = (image for folder in folders for image in image_files(folder, recursive=False))
    surplus = {image.relative_to(source.root).as_posix() for image in images} - listed
    missing = [path for path in listed if not (source.root / path).is_file()]
    problems = tuple(filter(None, [too_few_classes(source)]))
    return Report(title, source.root, counts(source), {}, tuple(sorted(missing)), tuple(sorted(surplus)), problems)


def too_few_classes(source: Source) -> str:
    """What is wrong with the number of classes; empty where nothing is."""
    if source.multi_label:
        return "" if source.classes else "no image has a finding"
    few = len(source.classes) < 2
    return f"classification needs at least 2 classes, found only {source.classes[0]!r}" if few else ""


def counts(source: Source) -> dict[str, int]:
    """Of classes that have images, images, groups such as patients, and the splits' images where there are splits."""
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
    """Of the image files in folders of a root and below, relative to it, with forward slashes."""
    above = len(str(root / "_")) - 1  # of root's own part of a path; relative_to is slow for 100,000 images
    return {
        file.path[above:].replace(os.sep, "/")
        for folder in folders
        if (root / folder).is_dir()
        for file in files_below(root / folder)
        if file.is_file() and posixpath.splitext(file.name)[1].lower() in extensions()
    }
