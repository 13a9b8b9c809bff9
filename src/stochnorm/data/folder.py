"""Images in a folder per class, with or without train/, val/ and test/ above."""

from __future__ import annotations

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
        ValueError: No class folders, images beside them, an empty class folder, or a class that only test or val has.
    """
    train = next((folder for folder in _subfolders(root) if folder.name.lower() == "train"), root / "train")
    if train.is_dir() and not image_files(train, recursive=False) and any(p.is_dir() for p in train.iterdir()):
        folders = {folder: SPLITS[folder.name.lower()] for folder in _subfolders(root) if folder.name.lower() in SPLITS}
        rows = [row for folder, split in folders.items() for row in _read_classes(root, folder, split)]
        trained = {row.label for row in rows if row.split == "train"}
        strangers = sorted({row.label for row in rows} - trained)
        if strangers:
            raise ValueError(f"{root}: classes without training images: {some(strangers)}; add them to {train}")
    else:
        rows = _read_classes(root, root, "")
    return Source(root.resolve(), rows)


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


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def image_files(folder: Path, recursive: bool = True) -> list[Path]:
    files = sorted(
        path
        for path in (folder.rglob("*") if recursive else folder.iterdir())
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file()
    )
    images = [path for path in files if path.suffix.lower() in _extensions()]
    others = [path.name for path in files if path.suffix.lower() not in _extensions()]
    if recursive and others:
        warnings.warn(f"{folder}: left out {len(others)} files that are no images: {some(others)}", stacklevel=2)
    return images


@cache
def _extensions() -> frozenset[str]:
    Image.init()
    return frozenset(ext for ext, kind in Image.registered_extensions().items() if kind in Image.OPEN) - {".pdf"}
