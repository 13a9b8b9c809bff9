"""Labelled images as rows (path, label, split, group), and their CSV form."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stochnorm.text import some

__all__ = ["Row", "Source", "findings", "format_manifest", "list_manifest", "read_manifest"]

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Row(NamedTuple):
    """One labelled image."""

    path: str
    """Relative to the source's root, with forward slashes."""
    label: str
    """The class name; of a multi-label source the findings joined by "|", empty where there are none."""
    split: str = ""
    """"train", "val" or "test"; empty where the source does not say."""
    group: str = ""
    """What the image is one of several of, such as the patient: the images of a group are never split."""


@dataclass(frozen=True)
class Source:
    """A list of labelled images on disk."""

    root: Path
    """What the rows' paths are relative to."""
    rows: list[Row]
    classes: tuple[str, ...] = ()
    """In the data set's own order; empty: those of the rows, sorted, numbers by their value."""
    multi_label: bool = False
    """Whether an image has any number of classes, instead of one."""
    name: str = ""
    """Short, for file names: the data set's name, the folder's or the file's."""
    notes: tuple[str, ...] = ()
    """What the reader found odd, but no error."""

    def __post_init__(self) -> None:
        if not self.classes:
            labels = {row.label for row in self.rows}
            names = {name for label in labels for name in findings(label)} if self.multi_label else labels
            by_value = all(name.isdecimal() for name in names)
            key = (lambda name: (int(name), name)) if by_value else None
            object.__setattr__(self, "classes", tuple(sorted(names, key=key)))


def findings(label: str) -> list[str]:
    """The findings of a multi-label row's label.

    Example:
        >>> findings("Edema|Mass"), findings("")
        (['Edema', 'Mass'], [])
    """
    return [name for name in dict.fromkeys(part.strip() for part in label.split("|")) if name]


def read_manifest(path: Path) -> Source:
    """The images of a CSV file, see :func:`list_manifest`, which must all be there.

    Raises:
        ValueError: What :func:`list_manifest` says.
        FileNotFoundError: Listed images do not exist.
    """
    source = list_manifest(path)
    missing = [row.path for row in source.rows if not (source.root / row.path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path}: {len(missing)} of {len(source.rows)} listed images do not exist under {source.root}: "
            f"{some(missing)}"
        )
    return source


def list_manifest(path: Path) -> Source:
    """Read a CSV file with the columns ``path,label`` and optionally ``split`` and ``group``; looks for no image.

    Multi-label: the column ``labels`` instead, its values joined by "|", empty for none. Paths are relative to the
    file's folder and must stay inside it (links may lead out). With a ``split`` column, every row says train, val
    (also valid, validation) or test; with a ``group`` column, every row has one.

    Raises:
        ValueError: A column, label, split or group is missing or unknown, a path leaves the folder or stands twice,
            or what :func:`read_csv` says. The message names file, line and value.
    """
    root = path.parent.resolve()
    rows: list[Row] = []
    seen: dict[str, int] = {}
    columns, records = read_csv(path)
    multi_label = "labels" in columns
    if "path" not in columns or multi_label == ("label" in columns):
        other = next((name for mark, name in ((";", "semicolons"), ("\t", "tabs")) if mark in "".join(columns)), "")
        raise ValueError(
            f"{path}: the first line must name the columns path,label[,split], got {','.join(columns) or 'nothing'}"
            + (f"; separate columns by commas, not {other}" if other else "")
            + " (labels in place of label holds any number joined by |; group keeps images in one split)"
        )
    for number, record in records:
        where = f"{path}:{number}"
        name, label = record["path"], record["labels" if multi_label else "label"]
        split = record.get("split", "").lower()
        if not name or not (label or multi_label):
            raise ValueError(f"{where}: {'path' if not name else f'the label of {name!r}'} is missing; fill it in")
        if "split" in columns and split not in SPLITS:
            raise ValueError(f"{where}: split must be train, val or test, got {split!r} for {name!r}")
        if "group" in columns and not record["group"]:
            raise ValueError(f"{where}: the group of {name!r} is missing; fill it in, or leave the column out")
        # Lexically, so that a link keeps the name that the manifest gives it.
        full = Path(os.path.normpath(root / name))
        base = next((base for base in (root, path.parent.absolute()) if full.is_relative_to(base)), None)
        if base is None:
            raise ValueError(
                f"{where}: {name!r} lies outside the manifest's folder {root}; put the manifest beside the images "
                "and give relative paths"
            )
        name = full.relative_to(base).as_posix()
        if name in seen:
            raise ValueError(f"{where}: {name!r} stands in line {seen[name]} already; list each image once")
        seen[name] = number
        label = "|".join(findings(label)) if multi_label else label
        rows.append(Row(name, label, SPLITS.get(split, ""), record.get("group", "")))
    if not rows:
        raise ValueError(f"{path}: lists no images")
    joined = next((row.label for row in rows if ";" in row.label or "," in row.label), "")
    if multi_label and joined and not any("|" in row.label for row in rows):
        warnings.warn(f"{path}: {joined!r} is read as one label; several are joined by |", stacklevel=2)
    return Source(root, rows, multi_label=multi_label, name=path.stem)


def format_manifest(rows: Iterable[Row], *, multi_label: bool = False) -> str:
    """The rows as CSV text that :func:`read_manifest` reads back.

    The column ``group`` is written where a row has one.

    Example:
        >>> print(format_manifest([Row("1.png", "Edema|Mass", "train", "patient 7")], multi_label=True))
        path,labels,split,group
        1.png,Edema|Mass,train,patient 7
    """
    rows = list(rows)
    columns = ["path", "labels" if multi_label else "label", "split", "group"]
    width = 4 if any(row.group for row in rows) else 3
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns[:width], *(row[:width] for row in rows)])
    return text.getvalue()


def read_csv(path: Path, data: bytes | None = None) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a CSV file in lower case, and its records with their line numbers.

    Args:
        path: The file.
        data: Its content, where it is not the file's bytes as they are.

    Returns:
        Names and values are stripped; a value is "" where there is none.

    Raises:
        ValueError: A column stands twice, a line has more values than there are columns, a value holds a line break
            or its quote is not closed, or the file is not UTF-8.
    """
    text = io.StringIO(decode(path, path.read_bytes() if data is None else data), newline="")
    reader = csv.reader(text, strict=True)
    records = []
    last = 0
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        twice = sorted({name for name in columns if name and columns.count(name) > 1})
        if twice:
            raise ValueError(f"{path}: the first line names {some(twice)} more than once; keep one column of a name")
        last = reader.line_num
        for values in reader:
            first, last = last + 1, reader.line_num
            if any(value.strip() for value in values[len(columns) :]):
                raise ValueError(
                    f"{path}:{last}: has {len(values)} values for {len(columns)} columns; put a value that holds a "
                    'comma in "quotes"'
                )
            if any("\n" in value or "\r" in value for value in values):
                raise ValueError(
                    f"{path}:{first}: a value goes on to line {last}; close its quote, or take the line break out"
                )
            if values:
                padded = [value.strip() for value in values] + [""] * len(columns)
                records.append((last, dict(zip(columns, padded, strict=False))))
    except csv.Error as error:
        raise ValueError(f"{path}:{last + 1}: cannot be read as CSV ({error}); mend the line") from error
    return columns, records


def decode(path: Path, data: bytes) -> str:
    """The text of a file's bytes.

    Raises:
        ValueError: It is not UTF-8; names file and line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}:{line}: is not UTF-8 text (byte 0x{data[error.start]:02x}); save it as UTF-8 "
            '(in a spreadsheet: "CSV UTF-8")'
        ) from error
