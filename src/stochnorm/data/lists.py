"""Index lists: which images train, validate and test, as text files that others can use.

The form in which the image lists of papers are released: ``train.txt``, ``val.txt`` and ``test.txt`` with a path a
line, which may be followed by labels.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from stochnorm.data.manifest import Row, decode
from stochnorm.data.splits import check_groups
from stochnorm.files import write_text
from stochnorm.text import some

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


def read_lists(lists: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows that lists name, with the lists' splits.

    ``train.txt`` must be there. Where ``val.txt`` or ``test.txt`` is not, the rows that say so themselves validate or
    test. A path may be followed by labels, which are not read. Where no path of a list is one of the source's, the list
    was made for another layout: of the images of that file name, the one is meant whose path ends most like it; among
    equals the one that the source has in the list's split.

    Args:
        lists: A folder of lists, or the training list alone.
        rows: The images of the source.

    Raises:
        FileNotFoundError: There is no train.txt.
        ValueError: Unknown or ambiguous paths, no training image, an image in two lists or twice in one, images of the
            source's test split in train.txt or val.txt without a test.txt, or a group that the lists divide.
    """
    files = {"train": lists} if lists.is_file() else {split: lists / f"{split}.txt" for split in _SPLITS}
    if not files["train"].is_file():
        raise FileNotFoundError(
            f"{files['train']}: no such list; a folder of lists holds train.txt [val.txt] [test.txt]"
        )
    files = {split: file for split, file in files.items() if file.is_file()}
    by_path = {row.path: row for row in rows}
    chosen: dict[str, str] = {}
    for split, file in files.items():
        lines = [line.strip() for line in decode(file, file.read_bytes()).splitlines() if line.strip()]
        if split == "train" and not lines:
            raise ValueError(f"{file}: names no image to train on; put a path in each line")
        for path in _resolve(file, lines, by_path, split):
            if path in chosen:
                raise ValueError(f"{file}: {path} is in {files[chosen[path]].name} already; list each image once")
            chosen[path] = split
    if "test" not in files:
        stolen = [path for path in chosen if by_path[path].split == "test"]
        if stolen:
            raise ValueError(
                f"{lists}: {len(stolen)} images are of the data's test split: {some(stolen)}; add test.txt"
            )
    kept = {"val", "test"} - files.keys()
    chosen = {row.path: row.split for row in rows if row.split in kept} | chosen
    listed = [row._replace(split=chosen[row.path]) for row in rows if row.path in chosen]
    check_groups(listed)
    return listed


def _resolve(file: Path, lines: Sequence[str], rows: Mapping[str, Row], split: str) -> list[str]:
    """The source's path of each line."""
    names = [_names(line) for line in lines]
    exact = [[name for name in candidates if name in rows][:1] for candidates in names]
    found = exact if any(exact) else _alike(names, rows, split)
    unknown = [line for line, paths in zip(lines, found, strict=True) if not paths]
    if unknown:
        raise ValueError(f"{file}: {len(unknown)} of {len(lines)} lines name no image of the data: {some(unknown)}")
    several = [f"{line} ({len(paths)} files)" for line, paths in zip(lines, found, strict=True) if len(paths) > 1]
    if several:
        raise ValueError(
            f"{file}: {len(several)} of {len(lines)} lines are ambiguous, since images of the data have the same file "
            f"name: {some(several)}; give paths relative to the data"
        )
    return [path for (path,) in found]


def _names(line: str) -> list[str]:
    """What a line may call an image: the whole first, since a path may hold spaces; then without its labels."""
    names = [line]
    while len(parts := names[-1].rsplit(maxsplit=1)) > 1:
        names.append(parts[0])
    return [posixpath.normpath(name) for name in names]


def _alike(names: Sequence[Sequence[str]], rows: Mapping[str, Row], split: str) -> list[list[str]]:
    """Of each line the paths whose ends have most folders in common with it."""
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
    """The number of last parts that two paths share."""
    pairs = zip(reversed(first.split("/")), reversed(second.split("/")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
