"""Images in a folder per class, with or without train/, val/ and test/ above."""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path

from PIL import Image

from stochnorm.data.manifest import SPLITS, Row, Source, some

__all__ = ["image_files", "read_folder"]


def read_folder(root: Path) -> Source:
    """Read ``root/<class>/**/image`` or ``root/{train,val,test}/<class>/**/image``.

    The second layout is taken where ``root/train`` holds folders and no images itself (so that a class may be called
    "train"). Files that are no images by their extension are left out with a warning; hidden ones silently.

    Raises:
        ValueError: No class folders, images beside them, an empty class folder, a class that only test or val has,
            a folder beside train/ that is no split, a run of stochnorm among the images, or a file name that is not
            UTF-8.
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
    for config in root.rglob("config.json"):
        run = config.parent
        hidden = any(part.startswith(".") for part in run.relative_to(root).parts)
        if not hidden and any((run / name).is_file() for name in ("metrics.jsonl", "model.safetensors")):
            raise ValueError(
                f"{run} is a run of stochnorm, whose plots would be read as images; move it out of {root}, and give "
                "runs another place with --out"
            )


def _subfolders(folder: Path) -> list[Path]:
    return _named([p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")])


def image_files(folder: Path, recursive: bool = True) -> list[Path]:
    files = _named(
        [
            path
            for path in (folder.rglob("*") if recursive else folder.iterdir())
            if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file()
        ]
    )
    images = [path for path in files if path.suffix.lower() in extensions()]
    others = [path.name for path in files if path.suffix.lower() not in extensions()]
    if recursive and others:
        warnings.warn(f"{folder}: left out {len(others)} files that are no images: {some(others)}", stacklevel=2)
    return images


def _named(paths: list[Path]) -> list[Path]:
    """Sorted; names that no text file could hold are an error here, before a whole run ends in one."""
    for path in paths:
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
