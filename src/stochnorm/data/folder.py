"""Images in a folder per class, with or without train/, val/ and test/ above."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from stochnorm.data.manifest import SPLITS, Row, Source
from stochnorm.text import some

__all__ = ["files_below", "image_files", "read_folder"]


def read_folder(root: Path) -> Source:
    """Read ``root/<class>/**/image`` or ``root/{train,val,test}/<class>/**/image``.

    The second layout is taken where ``root/train`` holds folders and no images itself (so that a class may be called
    "train"). Files that are no images by their extension are left out with a warning, as links to nothing are; hidden
    ones and those of ``__MACOSX`` silently. Linked folders are followed, but not to one that they lie in.

    Raises:
        ValueError: No class folders, images beside them, an empty class folder, a class that only test or val has,
            a folder beside train/ that is no split, a run of stochnorm among the images, or a file name that is not
            UTF-8 or has a line break.
    """
    _check_runs(root)
    folders = _subfolders(root)
    splits = {folder: SPLITS[folder.name.lower()] for folder in folders if folder.name.lower() in SPLITS}
    if any(split == "train" and _holds_classes(folder) for folder, split in splits.items()):
        strays = [folder.name for folder in folders if folder not in splits]
        if strays:
            raise ValueError(
                f"{root}: train/ holds folders, so it is read as the training split, beside which only val/ and test/ "
                f"are known; found {some(strays)}: rename or move them (if train is a class, take the folders out of "
                "it)"
            )
        rows = [row for folder, split in splits.items() for row in _read_classes(root, folder, split)]
        trained = {row.label for row in rows if row.split == "train"}
        strangers = sorted({row.label for row in rows} - trained)
        if strangers:
            raise ValueError(f"{root}: classes without training images: {some(strangers)}; add them to {root}/train")
    else:
        strays = [p.name for p in folders if p.name.lower() in {*SPLITS, "training", "testing"} and _holds_classes(p)]
        if strays:
            raise ValueError(
                f"{root}: {some(strays)} hold folders as splits do, but there is no split called train; call the "
                "splits train, val and test (a class of that name holds its images itself)"
            )
        rows = _read_classes(root, root, "")
    return Source(root.resolve(), rows, name=root.resolve().name)


def _holds_classes(folder: Path) -> bool:
    return bool(_subfolders(folder)) and not image_files(folder, recursive=False)


def _read_classes(root: Path, folder: Path, split: str) -> list[Row]:
    loose = image_files(folder, recursive=False)
    classes = _subfolders(folder)
    _warn_of_dangling(folder, _visible(folder))
    if not classes:
        raise ValueError(
            f"{folder}: expected a folder per class, found {'only loose images' if loose else 'nothing'}; "
            "or give a CSV file with the columns path,label"
        )
    if loose:
        raise ValueError(f"{folder}: {len(loose)} images beside the class folders ({loose[0].name} ...); move them in")
    rows = []
    for class_folder in classes:
        images = image_files(class_folder, recursive=True)
        if not images:
            raise ValueError(f"{class_folder}: this class folder holds no images; add some or delete it")
        rows += [Row(image.relative_to(root).as_posix(), class_folder.name, split) for image in images]
    return rows


def _check_runs(root: Path) -> None:
    """A run's curves.png would become an image of the class "runs"."""
    for run in (Path(file.path).parent for file in files_below(root) if file.name == "config.json"):
        if any((run / name).is_file() for name in ("metrics.jsonl", "model.safetensors")):
            raise ValueError(
                f"{run} is a run of stochnorm, whose plots would be read as images; move it out of {root}, and give "
                "runs another place with --out"
            )


def _subfolders(folder: Path) -> list[Path]:
    return _named([Path(entry.path) for entry in _visible(folder) if _leads_down(entry, [])])


def image_files(folder: Path, recursive: bool = True) -> list[Path]:
    entries = list(files_below(folder)) if recursive else _visible(folder)
    files = _named([Path(entry.path) for entry in entries if entry.is_file()])
    images = [path for path in files if path.suffix.lower() in extensions()]
    others = [path.name for path in files if path.suffix.lower() not in extensions()]
    if recursive:
        _warn_of_dangling(folder, entries)
    if recursive and others:
        warnings.warn(f"{folder}: left out {len(others)} files that are no images: {some(others)}", stacklevel=2)
    return images


def files_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Whatever is no folder in a folder and those below it, linked ones too; nothing hidden, nothing of __MACOSX."""
    yield from _files_below(folder, [folder.resolve()])


def _files_below(folder: str | Path, chain: list[Path]) -> Iterator[os.DirEntry[str]]:
    for entry in _visible(folder):
        if not entry.is_dir():
            yield entry
        elif _leads_down(entry, chain):
            yield from _files_below(entry.path, [*chain, Path(entry.path).resolve()] if entry.is_symlink() else chain)


def _leads_down(entry: os.DirEntry[str], chain: list[Path]) -> bool:
    """Whether it is a folder, and no link to one that the link itself lies in, by the folders that led here."""
    if not entry.is_symlink():
        return entry.is_dir()
    target, here = Path(entry.path).resolve(), Path(entry.path).parent.resolve()
    return entry.is_dir() and not any(place.is_relative_to(target) for place in (*chain, here))


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]


def _warn_of_dangling(folder: Path, entries: list[os.DirEntry[str]]) -> None:
    names = sorted(entry.name for entry in entries if entry.is_symlink() and not Path(entry.path).exists())
    if names:
        warnings.warn(f"{folder}: left out {len(names)} links that lead to nothing: {some(names)}", stacklevel=3)


def _named(paths: list[Path]) -> list[Path]:
    """Sorted; names that no text file could hold are an error here, before a whole run ends in one."""
    for path in paths:
        if "\n" in path.name or "\r" in path.name:
            raise ValueError(
                f"the file name {path.name!r} has a line break, which no list of images can hold; rename it"
            )
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the file name {os.fsencode(path)!r} is not UTF-8; rename it") from error
    return sorted(paths)


@cache
def extensions() -> frozenset[str]:
    """Of the image files that Pillow reads."""
    Image.init()
    return frozenset(ext for ext, kind in Image.registered_extensions().items() if kind in Image.OPEN) - {".pdf"}
