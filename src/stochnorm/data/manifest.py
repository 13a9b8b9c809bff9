"""Labelled images as rows (path, label, split, group), and their CSV form."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["Row", "Source", "findings", "format_manifest", "read_manifest"]

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
    """In the data set's own order; empty: those of the rows, sorted."""
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
            object.__setattr__(self, "classes", tuple(sorted(names)))


def findings(label: str) -> list[str]:
    """The findings of a multi-label row's label.

    Example:
        >>> findings("Edema|Mass"), findings("")
        (['Edema', 'Mass'], [])
    """
    return [name for name in dict.fromkeys(part.strip() for part in label.split("|")) if name]


def read_manifest(path: Path) -> Source:
    """Read a CSV file with the columns ``path,label`` and optionally ``split`` and ``group``.

    Multi-label: the column ``labels`` instead, its values joined by "|", empty for none. Paths are relative to the
    file's folder and must stay inside it (links may lead out). With a ``split`` column, every row says train, val
    (also valid, validation) or test; with a ``group`` column, every row has one.

    Raises:
        ValueError: A column, label, split or group is missing or unknown, a path leaves the folder or stands twice,
            or the file is not UTF-8. The message names file, line and value.
        FileNotFoundError: Listed images do not exist.
    """
    root = path.parent.resolve()
    rows: list[Row] = []
    missing: list[str] = []
    seen: dict[str, int] = {}
    columns, records = read_csv(path)
    multi_label = "labels" in columns
    if "path" not in columns or multi_label == ("label" in columns):
        raise ValueError(
            f"{path}: the first line must name the columns path,label[,split], got {','.join(columns) or 'nothing'} "
            "(labels in place of label holds any number joined by |; group keeps images in one split)"
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
        if not full.is_file():
            missing.append(name)
        label = "|".join(findings(label)) if multi_label else label
        rows.append(Row(name, label, SPLITS.get(split, ""), record.get("group", "")))
    if missing:
        raise FileNotFoundError(
            f"{path}: {len(missing)} of {len(rows)} listed images do not exist under {root}: {some(missing)}"
        )
    if not rows:
        raise ValueError(f"{path}: lists no images")
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
    """The columns of a CSV file, and its records with their line numbers; values stripped, "" where there is none.

    Args:
        path: The file.
        data: Its content, where it is not the file's bytes as they are.
    """
    reader = csv.DictReader(io.StringIO(decode(path, path.read_bytes() if data is None else data), newline=""))
    try:
        columns = list(reader.fieldnames or [])
        return columns, [(reader.line_num, {key: (record[key] or "").strip() for key in columns}) for record in reader]
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: cannot be read as CSV ({error}); mend the line") from error


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


def some(names: list[str], most: int = 5) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
