"""Labelled images as rows (path, label, split), and their CSV form."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Row", "Source", "format_manifest", "read_manifest"]

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Row(NamedTuple):
    """One labelled image."""

    path: str
    """Relative to the source's root, with forward slashes."""
    label: str
    """The class name."""
    split: str = ""
    """"train", "val" or "test"; empty where the source does not say."""


class Source(NamedTuple):
    """A list of labelled images on disk."""

    root: Path
    rows: list[Row]


def read_manifest(path: Path) -> Source:
    """Read a CSV file with the columns ``path,label`` and optionally ``split``.

    Paths are relative to the file's folder and must stay inside it. With a ``split`` column, every row says train,
    val (also valid, validation) or test.

    Raises:
        ValueError: A column, label, or split is missing or unknown, a path leaves the folder or stands twice. The
            message names file, line and value.
        FileNotFoundError: Listed images do not exist.
    """
    root = path.parent.resolve()
    rows: list[Row] = []
    missing: list[str] = []
    seen: dict[str, int] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if not {"path", "label"} <= set(columns):
            raise ValueError(
                f"{path}: the first line must name the columns path,label[,split], got {','.join(columns) or 'nothing'}"
            )
        for record in reader:
            where = f"{path}:{reader.line_num}"
            name, label = (record["path"] or "").strip(), (record["label"] or "").strip()
            split = (record.get("split") or "").strip().lower()
            if not name or not label:
                raise ValueError(f"{where}: {'path' if not name else f'the label of {name!r}'} is missing; fill it in")
            if "split" in columns and split not in SPLITS:
                raise ValueError(f"{where}: split must be train, val or test, got {split!r} for {name!r}")
            full = (root / name).resolve()
            if not full.is_relative_to(root):
                raise ValueError(
                    f"{where}: {name!r} lies outside the manifest's folder {root}; put the manifest beside the images "
                    "and give relative paths"
                )
            name = full.relative_to(root).as_posix()
            if name in seen:
                raise ValueError(f"{where}: {name!r} stands in line {seen[name]} already; list each image once")
            seen[name] = reader.line_num
            if not full.is_file():
                missing.append(name)
            rows.append(Row(name, label, SPLITS.get(split, "")))
    if missing:
        raise FileNotFoundError(
            f"{path}: {len(missing)} of {len(rows)} listed images do not exist under {root}: {some(missing)}"
        )
    if not rows:
        raise ValueError(f"{path}: lists no images")
    return Source(root, rows)


def format_manifest(rows: Iterable[Row]) -> str:
    """The rows as CSV text that :func:`read_manifest` reads back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    return text.getvalue()


def some(names: list[str], most: int = 5) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
