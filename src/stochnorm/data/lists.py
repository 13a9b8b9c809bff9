"""Index lists: which images train, validate and test, as text files that others can use.

The form in which the image lists of papers are released: ``train.txt``, ``val.txt`` and ``test.txt`` with a path a
line, which may be followed by a label.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from stochnorm.data.manifest import Row, decode, some
from stochnorm.data.splits import check_groups
from stochnorm.files import write_text

__all__ = ["export_lists", "read_lists"]

_SPLITS = ("train", "val", "test")


def export_lists(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write a list for each split that has images; each whole or not at all.

    Returns:
        The files written.

    Raises:
        FileExistsError: The folder holds lists already.
        ValueError: A row has no split, or a path that does not fit in a line.
    """
    files = {split: folder / f"{split}.txt" for split in _SPLITS}
    old = [path.name for path in files.values() if path.exists()]
    if old:
        raise FileExistsError(f"{folder} holds {', '.join(old)} already; export to another folder")
    bad = [row.path for row in rows if row.split not in files or len(row.path.splitlines()) != 1]
    if bad:
        raise ValueError(f"images without a split, or with a line break in their path: {some([repr(p) for p in bad])}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for split, path in files.items():
        paths = [row.path for row in rows if row.split == split]
        if paths:
            write_text(path, "".join(f"{p}\n" for p in paths))
            written.append(path)
    return written


def read_lists(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows that lists name, with the lists' splits.

    ``train.txt`` must be there. Where ``val.txt`` or ``test.txt`` is not, the rows that say so themselves validate or
    test. A path may be followed by a label, which is not read. Where no path of a list is one of the source's, the list
    was made for another layout, and images are known by their file names if those are unique.

    Raises:
        FileNotFoundError: There is no train.txt.
        ValueError: Unknown or ambiguous paths, an image in two lists or twice in one, images of the source's test
            split in train.txt or val.txt without a test.txt, or a group that the lists divide.
    """
    files = {split: folder / f"{split}.txt" for split in _SPLITS}
    if not files["train"].is_file():
        raise FileNotFoundError(
            f"{files['train']}: no such list; a folder of lists holds train.txt [val.txt] [test.txt]"
        )
    by_path = {row.path: row for row in rows}
    chosen: dict[str, str] = {}
    for split, file in files.items():
        if not file.is_file():
            continue
        lines = [line.strip() for line in decode(file, file.read_bytes()).splitlines() if line.strip()]
        paths = _resolve(lines, by_path)
        unknown = [line for line, path in zip(lines, paths, strict=True) if path is None]
        if unknown:
            raise ValueError(f"{file}: {len(unknown)} of {len(lines)} lines name no image of the data: {some(unknown)}")
        for path in paths:
            if path in chosen:
                raise ValueError(f"{file}: {path} is in {chosen[path]}.txt already; list each image once")
            chosen[str(path)] = split
    if not files["test"].is_file():
        stolen = [path for path in chosen if by_path[path].split == "test"]
        if stolen:
            raise ValueError(
                f"{folder}: {len(stolen)} images are of the data's test split: {some(stolen)}; add test.txt"
            )
    kept = [split for split in ("val", "test") if not files[split].is_file()]
    chosen = {row.path: row.split for row in rows if row.split in kept} | chosen
    listed = [row._replace(split=chosen[row.path]) for row in rows if row.path in chosen]
    check_groups(listed)
    return listed


def _resolve(lines: Sequence[str], rows: Mapping[str, Row]) -> list[str | None]:
    """The source's path of each line, None where it has none."""
    # The whole line first: a path may hold spaces.
    names = [[posixpath.normpath(name) for name in (line, line.rpartition(" ")[0].rstrip()) if name] for line in lines]
    paths = [next((name for name in candidates if name in rows), None) for candidates in names]
    if any(paths):
        return paths
    same: dict[str, list[str]] = defaultdict(list)
    for path in rows:
        same[posixpath.basename(path)].append(path)
    found = [next((same[n] for c in candidates if (n := posixpath.basename(c)) in same), []) for candidates in names]
    return [paths[0] if len(paths) == 1 else None for paths in found]
