"""Published data sets on disk, compared with the official counts, lists and class names."""

from __future__ import annotations

import hashlib
import posixpath
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stochnorm.data.copies import warnings_of
from stochnorm.data.inventory import Report, counts, image_paths
from stochnorm.data.manifest import Source
from stochnorm.data.published.dataset import DataSet
from stochnorm.text import count, some

__all__ = ["list_official", "read_official", "verify_official"]


def read_official(dataset: DataSet, root: Path) -> Source:
    """Read a published data set whose listed images all exist; see [stochnorm.data.published.official.list_official][].

    Raises:
        ValueError: Lists contradict each other or are empty, or a class has test images only.
        FileNotFoundError: A list or a listed image does not exist.
    """
    source, report = _list(dataset, root)
    if report.missing:
        found = "".join(f"; {problem}" for problem in report.problems)
        raise FileNotFoundError(
            f"{dataset.title}: {len(report.missing):,} of {len(source.rows):,} listed images do not exist under "
            f"{root}: {some(report.missing)}{found}; get them from {dataset.homepage}, or remove them from the lists"
        )
    return _trainable(dataset, source, report)


def list_official(dataset: DataSet, root: Path) -> Source:
    """Read the lists of a published data set; its images need not exist.

    An incomplete set is read as it is, with a warning that says how it differs from the official one. Its classes are
    those with images.

    Raises:
        ValueError: Lists contradict each other or are empty, or a class has test images only.
        FileNotFoundError: A list does not exist.
    """
    return _trainable(dataset, *_list(dataset, root))


def verify_official(dataset: DataSet, root: Path) -> Report:
    """Make the inventory of a published data set; lists that cannot be read are a problem of it, not an error."""
    try:
        source = dataset.list_images(root)
        return replace(_compare(dataset, source), notes=tuple(warnings_of(source.root, source.rows)))
    except (ValueError, OSError) as error:
        return Report(dataset.title, root, {}, dict(dataset.counts), problems=(" ".join(str(error).split()),))


def _list(dataset: DataSet, root: Path) -> tuple[Source, Report]:
    try:
        source = dataset.list_images(root)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"taken for {dataset.title} by its files: {error}") from error
    report = _compare(dataset, source)
    if not source.rows:
        raise ValueError(f"{root}: the lists of {dataset.title} name no image; copy them from the official archive")
    return source, report


def _trainable(dataset: DataSet, source: Source, report: Report) -> Source:
    """Warn of differences from the official set; keep the classes with images, which must all have training images."""
    odd = [text for text in (", ".join(report.differences), *report.problems) if text]
    if report.surplus:
        odd.append(f"skipped {count(len(report.surplus), 'image file')} not listed ({some(report.surplus, 2)})")
    if odd:
        warnings.warn(f"{dataset.title} in {source.root} is not the official set: {'; '.join(odd)}", stacklevel=4)
    if source.multi_label:
        return source
    labelled = {row.label for row in source.rows}
    strangers = sorted(labelled - {row.label for row in source.rows if row.split != "test"})
    if strangers:
        raise ValueError(
            f"{source.root}: classes without training images: {some(strangers)}; remove them from the lists"
        )
    return replace(source, classes=tuple(name for name in source.classes if name in labelled))


def _compare(dataset: DataSet, source: Source) -> Report:
    twice = sorted(path for path, times in Counter(row.path for row in source.rows).items() if times > 1)
    if twice:
        raise ValueError(
            f"{source.root}: {count(len(twice), 'image')} listed more than once: {some(twice)}; correct the lists"
        )
    problems = list(source.notes)
    across = Counter(group for group, _ in {(row.group, row.split) for row in source.rows if row.group})
    divided = sorted(group for group, splits_of_it in across.items() if splits_of_it > 1)
    if divided:
        problems.append(f"{count(len(divided), 'patient')} in two splits: {some(divided)}")
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
    """Describe where files with the names of missing images are instead."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in unlisted:
        by_name[posixpath.basename(path)].append(path)
    moves: Counter[tuple[str, str]] = Counter()
    for path in missing:
        # Several folders may have a name, as those of Cars do: take the path most like the missing one.
        alike = sorted(by_name[posixpath.basename(path)], key=lambda p: (-len(posixpath.commonprefix([p, path])), p))
        moves.update((posixpath.dirname(p), posixpath.dirname(path)) for p in alike[:1])
    return [f"{n:,} of them are in {there or '.'}/; move them to {here}/" for (there, here), n in moves.most_common(5)]
