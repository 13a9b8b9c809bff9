"""Labelled images as rows (path, label, split, group), and their CSV form."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stochnorm.data.csv_text import read_csv
from stochnorm.data.listed import ListedPaths
from stochnorm.data.spelling import alike, together, warn_of_near_names
from stochnorm.spreadsheet import format_csv
from stochnorm.text import count, some

__all__ = ["Row", "Source", "findings", "format_manifest", "list_manifest", "read_manifest"]

_LONGEST = 1000  # digits of a class name that is sorted by its value
_EMPTY = {"nan", "<na>", "nat", "\\n", "#n/a", "#ref!", "#value!", "#name?", "#null!", "#div/0!", "#num!"}
"""How tables write a missing value or an error, and nobody a name; in small letters."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split that each name means, of a folder or in a list."""


class Row(NamedTuple):
    """One labelled image."""

    path: str
    """Path relative to the source's root, with forward slashes."""
    label: str
    """The class name; in a multi-label source the findings joined by "|", empty for none."""
    split: str = ""
    """"train", "val" or "test"; empty if the source has no splits."""
    group: str = ""
    """Group of the image, such as its patient; the images of a group stay in one split."""


@dataclass(frozen=True)
class Source:
    """Labelled images on disk."""

    root: Path
    """Folder that the rows' paths are relative to."""
    rows: list[Row]
    """The images."""
    classes: tuple[str, ...] = ()
    """Class names in the order of the data set; empty: those of the rows, sorted, numbers by their value."""
    multi_label: bool = False
    """True if an image has any number of classes instead of one."""
    name: str = ""
    """Short name for files: that of the data set, the folder or the file."""
    notes: tuple[str, ...] = ()
    """Oddities that the reader noticed and that are not errors."""

    def __post_init__(self) -> None:
        if not self.classes:
            labels = {row.label for row in self.rows}
            names = {name for label in labels for name in findings(label)} if self.multi_label else labels
            by_value = all(name.isdecimal() and len(name) < _LONGEST for name in names)
            key = (lambda name: (int(name), name)) if by_value else None
            object.__setattr__(self, "classes", tuple(sorted(names, key=key)))


def findings(label: str) -> list[str]:
    """Split the label of a multi-label row into its findings.

    Example:
        >>> findings("Edema|Mass"), findings("")
        (['Edema', 'Mass'], [])
    """
    return [name for name in dict.fromkeys(part.strip() for part in label.split("|")) if name]


def read_manifest(path: Path) -> Source:
    """Read a CSV file as [stochnorm.data.manifest.list_manifest][] does, and check that its images exist.

    Raises:
        ValueError: The file is not a manifest; see `list_manifest`.
        FileNotFoundError: Listed images do not exist.
    """
    source = list_manifest(path)
    missing = [row.path for row in source.rows if not _is_file(source.root / row.path)]
    if missing:
        raise FileNotFoundError(
            f"{path}: {len(missing)} of {len(source.rows)} listed images do not exist under {source.root}: "
            f"{some(missing)}"
        )
    return source


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def list_manifest(path: Path, *, exact: bool = False) -> Source:
    """Read a CSV file with the columns `path,label` and optionally `split` and `group`; its images need not exist.

    A multi-label file has the column `labels` instead, with values joined by "|", empty for none. Paths are relative
    to the file's folder and must stay inside it (links may lead out); see [stochnorm.data.listed.ListedPaths][] for
    those of other systems. With a `split` column, every row says train, val (also valid, validation) or test; with a
    `group` column, every row has one. The rows are sorted by path, so that no draw depends on the order of the lines.

    Args:
        path: The file.
        exact: The file is one that stochnorm wrote: names are as they are, with the space around them.

    Raises:
        ValueError: A column, label, split or group is missing or unknown, a path leaves the folder or is a duplicate,
            or the file is not CSV. The message names file, line and value.

    Warns:
        UserWarning: Labels that look the same are one class; labels may be one (Cat and cat, 1 and 01), or a missing
            value; labels seem to be joined by another mark than "|".
    """
    root = path.parent.resolve()
    listed = ListedPaths(path)
    rows: list[Row] = []
    seen: dict[str, int] = {}
    columns, records = read_csv(path, exact=exact)
    multi_label = "labels" in columns
    if "path" not in columns or multi_label == ("label" in columns):
        other = next(
            (name for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")) if mark in "".join(columns)),
            "",
        )
        raise ValueError(
            f"{path}: the first line must name the columns path,label[,split], got {','.join(columns) or 'nothing'}"
            + (f"; separate columns by commas, not {other}" if other else "")
            + " (optional: labels instead of label, for any number of labels joined by |; group, to keep images in one "
            "split)"
        )
    for number, record in records:
        where = f"{path}:{number}"
        name, label = record["path"], record["labels" if multi_label else "label"]
        split, group = record.get("split", "").lower(), record.get("group", "")
        if not name or not (label or multi_label):
            raise ValueError(f"{where}: {'path' if not name else f'the label of {name!r}'} is missing; fill it in")
        if "split" in columns and split not in SPLITS:
            raise ValueError(f"{where}: split must be train, val or test, got {split!r} for {name!r}")
        if "group" in columns and not group:
            raise ValueError(f"{where}: the group of {name!r} is missing; fill it in, or remove the column")
        if not exact:
            for what, value in (("label", label), ("group", group)):
                if value.lower() in _EMPTY:
                    none = ", or leave it empty for none" if multi_label and what == "label" else ""
                    raise ValueError(
                        f"{where}: the {what} of {name!r} is {value!r}, which is how tables write a missing value or "
                        f"an error; fill it in{none}"
                    )
            name = listed(name, where)
        if name in seen:
            raise ValueError(f"{where}: {name!r} is a duplicate of line {seen[name]}; list each image once")
        seen[name] = number
        label = "|".join(findings(label)) if multi_label else label
        rows.append(Row(name, label, SPLITS.get(split, ""), group))
    if not rows:
        raise ValueError(f"{path}: lists no images; add a line for each image")
    if not exact:
        rows = _with_one_spelling(path, rows, multi_label=multi_label)
        rows.sort(key=lambda row: row.path.replace("/", "\0"))  # folder by folder, as a folder is read
    joined = next((row.label for row in rows if ";" in row.label or "," in row.label), "")
    if multi_label and joined and not any("|" in row.label for row in rows):
        warnings.warn(f"{path}: {joined!r} is read as one label; join several labels by |", stacklevel=2)
    return Source(root, rows, multi_label=multi_label, name=path.stem)


def _with_one_spelling(path: Path, rows: list[Row], *, multi_label: bool) -> list[Row]:
    """Return the rows with one spelling for labels that look the same; warn of several."""
    labels = {name for row in rows for name in (findings(row.label) if multi_label else [row.label])}
    several = together(labels, alike)
    if several:
        warnings.warn(
            f"{path}: {count(len(several), 'class')} spelled in several ways that look the same (accents apart or "
            f"composed, spaces, characters without width), read as one: {some([spelled[0] for spelled in several])}",
            stacklevel=3,
        )
        one = {name: min(spelled, key=lambda name: name != alike(name)) for spelled in several for name in spelled}
        labels = {one.get(name, name) for name in labels}
        for number, row in enumerate(rows):
            names = [one.get(name, name) for name in (findings(row.label) if multi_label else [row.label])]
            rows[number] = row._replace(label="|".join(dict.fromkeys(names)))
    warn_of_near_names(path, labels, stacklevel=3)
    return rows


def format_manifest(rows: Iterable[Row], *, multi_label: bool = False) -> str:
    """Format rows as CSV text that [stochnorm.data.manifest.read_manifest][] reads back.

    The column `group` is written if a row has one.

    Example:
        >>> print(format_manifest([Row("1.png", "Edema|Mass", "train", "patient 7")], multi_label=True))
        path,labels,split,group
        1.png,Edema|Mass,train,patient 7
    """
    rows = list(rows)
    columns = ["path", "labels" if multi_label else "label", "split", "group"]
    width = 4 if any(row.group for row in rows) else 3
    return format_csv([columns[:width], *(row[:width] for row in rows)])
