"""A published data set on disk: what it should hold, and how its lists are read and held against its images."""

from __future__ import annotations

import hashlib
import posixpath
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stochnorm.data.inventory import Report, counts, image_paths
from stochnorm.data.manifest import Source, decode
from stochnorm.text import some

__all__ = ["DataSet", "check_lists", "pairs", "read_official", "text_lines", "verify_official"]


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
    """Whether a folder holds lists of this data set, or images as only it has them."""
    list_images: Callable[[Path], Source] = field(default=lambda root: Source(root, []), repr=False)
    """Reads the lists alone; the images need not be there. Raises ValueError where they contradict each other."""
    image_folders: Callable[[Path], list[str]] = field(default=lambda root: ["images"], repr=False)
    """Those of a data set's folder whose image files must all be listed."""


def read_official(dataset: DataSet, root: Path, *, images: bool = True) -> Source:
    """The images of a data set whose files are all there.

    An incomplete set is read as it is, with a warning that says what differs from the official one; its classes are
    those that have images.

    Args:
        dataset: Which.
        root: Its folder.
        images: Whether the listed images must be there.

    Raises:
        ValueError: Lists contradict each other or are empty, or a class has test images only.
        FileNotFoundError: A list, or a listed image, is not there.
    """
    try:
        source = dataset.list_images(root)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"taken for {dataset.title} by its files: {error}") from error
    report = _compare(dataset, source)
    if not source.rows:
        raise ValueError(f"{root}: the lists of {dataset.title} name no image; copy them from the official archive")
    if report.missing and images:
        found = "".join(f"; {problem}" for problem in report.problems)
        raise FileNotFoundError(
            f"{dataset.title}: {len(report.missing):,} of {len(source.rows):,} listed images do not exist under "
            f"{root}: {some(list(report.missing))}{found}; get them from {dataset.homepage}, or take them out of the "
            "lists"
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
    twice = sorted(path for path, count in Counter(row.path for row in source.rows).items() if count > 1)
    if twice:
        raise ValueError(
            f"{source.root}: {len(twice):,} images are listed more than once: {some(twice)}; mend the lists"
        )
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
    listed, present = {row.path for row in source.rows}, image_paths(source.root, folders)
    missing = sorted(listed - present)
    if missing:
        problems += _elsewhere(missing, image_paths(source.root) - listed)
    found = counts(source)
    found["patients"] = found.get("groups", 0)
    return Report(
        dataset.title,
        source.root,
        {key: found[key] for key in dataset.counts if key in found},
        dict(dataset.counts),
        tuple(missing),
        tuple(sorted(present - listed)),
        tuple(problems),
    )


def _elsewhere(missing: Sequence[str], unlisted: set[str]) -> list[str]:
    """Where files of the names of missing images lie instead."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in unlisted:
        by_name[posixpath.basename(path)].append(path)
    moves: Counter[tuple[str, str]] = Counter()
    for path in missing:
        # Names may stand in several folders, as those of Cars do: the one whose path is most like it.
        alike = sorted(by_name[posixpath.basename(path)], key=lambda p: (-len(posixpath.commonprefix([p, path])), p))
        moves.update((posixpath.dirname(p), posixpath.dirname(path)) for p in alike[:1])
    return [f"{n:,} of them lie in {there or '.'}/; move them to {here}/" for (there, here), n in moves.most_common(5)]


def check_lists(folder: Path, names: Sequence[str]) -> None:
    """Raises FileNotFoundError where lists are missing in a folder; names all of them."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is without {', '.join(missing)}; copy from the official archive")


def text_lines(path: Path) -> list[str]:
    """The lines of a list that are not blank, stripped.

    Raises:
        FileNotFoundError: There is no such list.
        ValueError: It is not UTF-8.
    """
    check_lists(path.parent, [path.name])
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
