"""Files with the same bytes: images that are in two splits, or under two classes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from stochnorm.data.manifest import Row
from stochnorm.text import count, some

__all__ = ["copies", "warnings_of"]

_PART = 4096  # bytes that are read of files of one size, before all of them are

_BY = "a column group in a CSV file keeps images in one split"


def copies(files: Iterable[Path]) -> list[list[Path]]:
    """Return the files that have the bytes of another, those of the same bytes together, in the order given.

    Only files of equal sizes are read: their beginnings first, then those with the same beginning whole. Files that
    are empty or cannot be read are left out; whoever needs them says so.
    """
    groups = _parted(dict.fromkeys(files), lambda path: path.stat().st_size)
    groups = [part for part in groups if part[0].stat().st_size]
    for digest in (_digest_of_beginning, _digest):
        groups = [part for group in groups for part in _parted(group, digest)]
    return groups


def warnings_of(root: Path, rows: Sequence[Row]) -> list[str]:
    """Return what is wrong with copies among images, a sentence each; empty if nothing is.

    Args:
        root: Folder that the rows' paths are relative to.
        rows: The images. Without splits, copies at all are told, since a draw may divide them.
    """
    by_path = {root / row.path: row for row in rows}
    groups = [[by_path[path] for path in group] for group in copies(by_path)]
    split = any(row.split for row in rows)
    said = []
    for part, other in (("test", "train"), ("val", "train"), ("test", "val")):
        pairs = [f"{row.path} = {copy.path}" for group in groups for row, copy in _across(group, part, other)]
        if pairs:
            of = count(sum(row.split == part for row in rows), f"{part} image")
            said.append(
                f"{len(pairs)} of {of} copied byte for byte from {other} images, so scores are too optimistic: "
                f"{some(pairs, 3)}; remove copies ({_BY})"
            )
    if groups and not split:
        copied = count(sum(len(group) - 1 for group in groups), "image")
        pairs = [" = ".join(row.path for row in group[:2]) for group in groups]
        said.append(
            f"{copied} copied byte for byte from others, which a draw may put into training and test: {some(pairs, 3)}"
            f"; remove copies ({_BY})"
        )
    disputed = [group for group in groups if len({row.label for row in group}) > 1]
    if disputed:
        named = [" = ".join(f"{row.path} ({row.label or 'none'})" for row in group) for group in disputed]
        said.append(
            f"{count(len(disputed), 'image')} under several classes, byte for byte the same: {some(named, 3)}; keep one"
        )
    return said


def _across(group: Sequence[Row], part: str, other: str) -> list[tuple[Row, Row]]:
    """Return the images of a split that have a copy in another, each with its copy."""
    copy = next((row for row in group if row.split == other), None)
    return [] if copy is None else [(row, copy) for row in group if row.split == part]


def _parted(files: Iterable[Path], key: Callable[[Path], Hashable]) -> list[list[Path]]:
    """Return the files that share a key with another, those of a key together."""
    parts: dict[Hashable, list[Path]] = defaultdict(list)
    for path in files:
        try:
            parts[key(path)].append(path)
        except OSError:
            continue
    return [part for part in parts.values() if len(part) > 1]


def _digest_of_beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(_PART)).digest()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
        return digest.digest()
