"""A published data set on disk: what it should hold, and what was found."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stochnorm.data.folder import extensions
from stochnorm.data.manifest import Source, decode, findings, some

__all__ = ["DataSet", "Report", "pairs", "read_official", "text_lines", "verify_official"]


@dataclass(frozen=True)
class DataSet:
    """The facts of a published data set, and how its files are read."""

    name: str
    """Short."""
    title: str
    """As its authors call it."""
    counts: Mapping[str, int]
    """The official numbers: "classes", "images", "train", "val", "test", "patients"."""
    licence: str
    homepage: str
    files: tuple[str, ...]
    """The lists and image folders, relative to the data set's folder."""
    folder: str = ""
    """The folder that its archive unpacks to."""
    url: str = ""
    """Of the archive; empty where it cannot be had by a plain download."""
    md5: str = ""
    """Of the archive."""
    obtain: str = ""
    """How to get it, where there is no ``url``."""
    class_digest: str = ""
    """SHA-256 of the official class names in their order, joined by newlines; empty where it is not known."""
    recognise: Callable[[Path], bool] = field(default=lambda root: False, repr=False)
    """Whether a folder holds lists of this data set."""
    list_images: Callable[[Path], Source] = field(default=lambda root: Source(root, []), repr=False)
    """Reads the lists alone; the images need not be there. Raises ValueError where they contradict each other."""
    image_folders: Callable[[Path], list[str]] = field(default=lambda root: ["images"], repr=False)
    """Those of a data set's folder whose image files must all be listed."""


@dataclass(frozen=True)
class Report:
    """What was found of a data set, beside what is official."""

    dataset: str
    """Its title."""
    root: Path
    """Where it was looked for."""
    found: dict[str, int]
    official: dict[str, int]
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
        """Whether the data set is complete and nothing else is there."""
        return not (self.differences or self.missing or self.surplus or self.problems)

    def lines(self) -> list[str]:
        """In words, the title first."""
        counts = ", ".join(f"{n:,} {key}" for key, n in self.found.items()) or "nothing"
        lines = [
            f"{self.dataset} in {self.root}: {'complete' if self.ok else 'not the official set'}",
            f"found {counts}",
        ]
        if self.differences:
            lines.append(f"counts differ: {', '.join(self.differences)}")
        if self.missing:
            lines.append(f"{len(self.missing):,} listed images have no file: {some(list(self.missing))}")
        if self.surplus:
            lines.append(f"{len(self.surplus):,} image files are in no list: {some(list(self.surplus))}")
        return lines + list(self.problems)


def read_official(dataset: DataSet, root: Path) -> Source:
    """The images of a data set whose files are all there.

    An incomplete set is read as it is, with a warning that says what differs from the official one; its classes are
    those that have images.

    Raises:
        ValueError: Lists contradict each other, or a class has test images only.
        FileNotFoundError: A list, or a listed image, is not there.
    """
    source = dataset.list_images(root)
    report = _compare(dataset, source)
    if report.missing:
        raise FileNotFoundError(
            f"{dataset.title}: {len(report.missing):,} of {len(source.rows):,} listed images do not exist under "
            f"{root}: {some(list(report.missing))}; get them from {dataset.homepage}, or take them out of the lists"
        )
    odd = [text for text in (", ".join(report.differences), *report.problems) if text]
    if report.surplus:
        odd.append(f"{len(report.surplus):,} image files in no list, left out ({some(list(report.surplus), 2)})")
    if odd:
        warnings.warn(f"{dataset.title} in {root} is not the official set: {'; '.join(odd)}", stacklevel=3)
    if not source.multi_label:
        labelled = {row.label for row in source.rows}
        strangers = sorted(labelled - {row.label for row in source.rows if row.split != "test"})
        if strangers:
            raise ValueError(f"{root}: classes without training images: {some(strangers)}; take them out of the lists")
        source = replace(source, classes=tuple(name for name in source.classes if name in labelled))
    return source


def verify_official(dataset: DataSet, root: Path) -> Report:
    """What is there and what is not; never an error."""
    try:
        return _compare(dataset, dataset.list_images(root))
    except (ValueError, OSError) as error:
        return Report(dataset.title, root, {}, dict(dataset.counts), problems=(" ".join(str(error).split()),))


def _compare(dataset: DataSet, source: Source) -> Report:
    splits = Counter(row.split for row in source.rows)
    labels = {row.label for row in source.rows}
    if source.multi_label:
        labels = {name for label in labels for name in findings(label)}
    found = {
        "classes": sum(name in labels for name in source.classes),
        "images": len(source.rows),
        "patients": len({row.group for row in source.rows}),
    }
    if set(splits) != {""}:
        found |= {split: splits[split] for split in ("train", "val", "test")}
    problems = list(source.notes)
    across = Counter(group for group, _ in {(row.group, row.split) for row in source.rows if row.group})
    divided = sorted(group for group, splits_of_it in across.items() if splits_of_it > 1)
    if divided:
        problems.append(f"{len(divided):,} patients are in two splits: {some(divided)}")
    digest = hashlib.sha256("\n".join(source.classes).encode()).hexdigest()
    if len(source.classes) == dataset.counts["classes"] and dataset.class_digest not in ("", digest):
        problems.append("the class names are not the official ones")
    folders = dataset.image_folders(source.root)
    problems += [f"no folder {name}/ in {source.root}" for name in folders if not (source.root / name).is_dir()]
    listed, present = {row.path for row in source.rows}, _image_files(source.root, folders)
    return Report(
        dataset.title,
        source.root,
        {key: found[key] for key in dataset.counts if key in found},
        dict(dataset.counts),
        tuple(sorted(listed - present)),
        tuple(sorted(present - listed)),
        tuple(problems),
    )


def _image_files(root: Path, folders: Sequence[str]) -> set[str]:
    """Relative to the root, with forward slashes; os.walk follows linked folders, which Path.rglob does not."""
    return {
        Path(folder, name).relative_to(root).as_posix()
        for top in folders
        for folder, _, names in os.walk(root / top, followlinks=True)
        for name in names
        if not name.startswith(".") and Path(name).suffix.lower() in extensions()
    }


def text_lines(path: Path) -> list[str]:
    """The lines of a list that are not blank, stripped.

    Raises:
        FileNotFoundError: There is no such list.
        ValueError: It is not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this list is missing; copy it from the official archive")
    return [line.strip() for line in decode(path, path.read_bytes()).splitlines() if line.strip()]


def pairs(path: Path) -> dict[str, str]:
    """A list with a key and a value a line, such as "17 001.Black_footed_Albatross".

    Raises:
        ValueError: A line has no value, or a key stands twice; names it.
    """
    entries: dict[str, str] = {}
    for line in text_lines(path):
        key, _, value = line.partition(" ")
        if not value or key in entries:
            raise ValueError(f"{path}: {line!r} {'repeats its key' if value else 'has no value'}; mend the line")
        entries[key] = value.strip()
    return entries
