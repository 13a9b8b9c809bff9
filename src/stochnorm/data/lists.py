"""Lists of the training, validation and test images, as text files that others can use.

Papers release their image lists in this form: `train.txt`, `val.txt` and `test.txt` with a path per line, optionally
followed by labels.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from stochnorm.data.csv_text import decode
from stochnorm.data.manifest import Row
from stochnorm.data.splits import check_groups
from stochnorm.files import write_text
from stochnorm.text import count, some

__all__ = ["export_lists", "read_lists"]

_SPLITS = ("train", "val", "test")


def export_lists(rows: Sequence[Row], folder: Path, *, empty: bool = False) -> list[Path]:
    """Write a list for each split that has images, atomically.

    Args:
        rows: The images.
        folder: Where to write.
        empty: Write a list for a split without images too: read back, the data's own split is not kept then.

    Returns:
        The written files.

    Raises:
        FileExistsError: The folder has lists.
        ValueError: A row has no split, or a path with a line break.
    """
    files = {split: folder / f"{split}.txt" for split in _SPLITS}
    old = [path.name for path in files.values() if path.exists()]
    if old:
        raise FileExistsError(f"{folder} has {', '.join(old)}; export to another folder")
    bad = [row.path for row in rows if row.split not in files or len(row.path.splitlines()) != 1]
    if bad:
        raise ValueError(f"images without a split, or with a line break in their path: {some([repr(p) for p in bad])}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for split, path in files.items():
        paths = [row.path for row in rows if row.split == split]
        if paths or empty:
            write_text(path, "".join(f"{p}\n" for p in paths))
            written.append(path)
    return written


def read_lists(lists: Path, rows: Sequence[Row]) -> list[Row]:
    """Select the rows that lists name, with the lists' splits.

    `train.txt` must exist. Without `val.txt` or `test.txt`, the source's own validation or test images are kept. A path
    may be followed by labels, which are ignored. If a list has no path of the source, it was made for another layout:
    a line then means the image of its file name with the longest common end of the path; among several the one that the
    source has in the list's split.

    Args:
        lists: Folder of lists, or the training list alone.
        rows: The images of the source.

    Raises:
        FileNotFoundError: There is no train.txt.
        ValueError: A path is unknown, ambiguous or a duplicate; train.txt is empty; train.txt or val.txt has images of
            the source's test split, and there is no test.txt; or the lists divide a group.
    """
    files = {"train": lists} if lists.is_file() else {split: lists / f"{split}.txt" for split in _SPLITS}
    if not files["train"].is_file():
        raise FileNotFoundError(f"{files['train']}: no such list; a folder of lists has train.txt [val.txt] [test.txt]")
    files = {split: file for split, file in files.items() if file.is_file()}
    by_path = {row.path: row for row in rows}
    chosen: dict[str, str] = {}
    for split, file in files.items():
        lines = [line.strip() for line in decode(file, file.read_bytes()).splitlines() if line.strip()]
        if split == "train" and not lines:
            raise ValueError(f"{file}: names no training image; write one path per line")
        for path in _resolve(file, lines, by_path, split):
            if path in chosen:
                raise ValueError(f"{file}: {path} is also in {files[chosen[path]].name}; list each image once")
            chosen[path] = split
    if "test" not in files:
        stolen = [path for path in chosen if by_path[path].split == "test"]
        if stolen:
            raise ValueError(
                f"{lists}: lists {count(len(stolen), 'image')} of the data's test split: {some(stolen)}; add test.txt"
            )
    kept = {"val", "test"} - files.keys()
    chosen = {row.path: row.split for row in rows if row.split in kept} | chosen
    listed = [row._replace(split=chosen[row.path]) for row in rows if row.path in chosen]
    check_groups(listed)
    return listed


def _resolve(file: Path, lines: Sequence[str], rows: Mapping[str, Row], split: str) -> list[str]:
    """Return the source's path of each line; raise ValueError for unknown and ambiguous lines."""
    names = [_names(line) for line in lines]
    exact = [[name for name in candidates if name in rows][:1] for candidates in names]
    found = exact if any(exact) else _alike(names, rows, split)
    unknown = [line for line, paths in zip(lines, found, strict=True) if not paths]
    if unknown:
        raise ValueError(f"{file}: {len(unknown)} of {len(lines)} lines name no image of the data: {some(unknown)}")
    several = [f"{line} ({len(paths)} files)" for line, paths in zip(lines, found, strict=True) if len(paths) > 1]
    if several:
        raise ValueError(
            f"{file}: {len(several)} of {len(lines)} lines are ambiguous, because several images have the file name: "
            f"{some(several)}; write paths relative to the data"
        )
    return [path for (path,) in found]


def _names(line: str) -> list[str]:
    """Return the possible paths of a line: the whole line, since a path may have spaces, then without its labels."""
    names = [line]
    while len(parts := names[-1].rsplit(maxsplit=1)) > 1:
        names.append(parts[0])
    return [posixpath.normpath(name) for name in names]


def _alike(names: Sequence[Sequence[str]], rows: Mapping[str, Row], split: str) -> list[list[str]]:
    """Return the paths of each line with the longest common end."""
    same: dict[str, list[str]] = defaultdict(list)
    for path in rows:
        same[posixpath.basename(path)].append(path)
    found = []
    for candidates in names:
        name = next((name for name in candidates if posixpath.basename(name) in same), "")
        paths = same.get(posixpath.basename(name), [])
        shared = [_common_end(name, path) for path in paths]
        best = [path for path, count in zip(paths, shared, strict=True) if count == max(shared)]
        own = [path for path in best if (rows[path].split == "test") == (split == "test")]
        found.append(best if len(best) == 1 else own or best)
    return found


def _common_end(first: str, second: str) -> int:
    """Count the last parts that two paths share."""
    pairs = zip(reversed(first.split("/")), reversed(second.split("/")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
