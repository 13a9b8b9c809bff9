"""Images in a folder per class, with or without train/, val/ and test/ above."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from stochnorm.data.clutter import is_clutter
from stochnorm.data.images.decoding.formats import HEIC, extensions
from stochnorm.data.manifest import SPLITS, Row, Source
from stochnorm.data.spelling import alike, together, warn_of_near_names
from stochnorm.text import count, some

__all__ = ["files_below", "image_files", "images_in", "is_file", "read_folder"]


def read_folder(root: Path) -> Source:
    """Read `root/<class>/**/image` or `root/{train,val,test}/<class>/**/image`.

    The second layout is used if `root/train` holds folders and no images itself (so that a class may be called
    "train"). Files that are not images by their extension, broken links, hidden files and what systems leave among
    images (see [stochnorm.data.clutter][]) are skipped with a warning. Linked folders are followed, except to a folder
    that contains the link.

    Raises:
        ValueError: There are no class folders, images next to them, an empty class folder, a class of val or test
            images only, two class folders whose names look the same, a folder next to train/ that is not a split, a
            run directory among the images, or a file name that is not UTF-8 or has a line break.
    """
    clutter: list[str] = []
    _check_runs(root, clutter)
    if clutter:
        names = some([repr(name)[1:-1] for name in sorted(set(clutter))])
        warnings.warn(f"{root}: skipped {count(len(clutter), 'hidden or system file')}: {names}", stacklevel=2)
    folders = _subfolders(root)
    splits = {folder: SPLITS[folder.name.lower()] for folder in folders if folder.name.lower() in SPLITS}
    if any(split == "train" and _holds_classes(folder) for folder, split in splits.items()):
        strays = [folder.name for folder in folders if folder not in splits]
        if strays:
            raise ValueError(
                f"{root}: train/ holds folders, so it is read as the training split, and only val/ and test/ may be "
                f"next to it; found {some(strays)}: rename or move them (if train is a class, move its images out of "
                "the folders)"
            )
        for split in sorted(set(splits.values())):
            same = [folder.name for folder, other in splits.items() if other == split]
            if len(same) > 1:
                raise ValueError(f"{root}: {some(same)} are all read as the split {split}; make them one folder")
        if loose := images_in(root):
            names = some([path.name for path in loose])
            warnings.warn(f"{root}: skipped {count(len(loose), 'image')} next to train/: {names}", stacklevel=2)
        rows = [row for folder, split in splits.items() for row in _read_classes(root, folder, split)]
        trained = {row.label for row in rows if row.split == "train"}
        strangers = sorted({row.label for row in rows} - trained)
        if strangers:
            raise ValueError(f"{root}: classes without training images: {some(strangers)}; add them to {root}/train")
    else:
        strays = [p.name for p in folders if p.name.lower() in SPLITS and _holds_classes(p)]
        if strays:
            raise ValueError(
                f"{root}: {some(strays)} hold folders as splits do, but there is no split called train; call the "
                "splits train, val and test (a class of that name holds its images itself)"
            )
        rows = _read_classes(root, root, "")
    _check_names(root, rows)
    return Source(root.resolve(), rows, name=root.resolve().name)


def _holds_classes(folder: Path) -> bool:
    return bool(_subfolders(folder)) and not images_in(folder)


def _read_classes(root: Path, folder: Path, split: str) -> list[Row]:
    loose = images_in(folder)
    classes = _subfolders(folder)
    _warn_of_broken_links(folder, _visible(folder))
    if not classes:
        raise ValueError(
            f"{folder}: expected a folder per class, found {'only loose images' if loose else 'nothing'}; "
            "make class folders, or use a CSV file with the columns path,label"
        )
    if loose:
        raise ValueError(
            f"{folder}: {count(len(loose), 'image')} next to the class folders ({loose[0].name} ...); move them in"
        )
    rows = []
    for class_folder in classes:
        images = image_files(class_folder)
        if not images:
            heic = any(path.suffix.lower() in HEIC for path in class_folder.rglob("*"))
            advice = "convert the HEIC images to JPEG" if heic else "add some or delete it"
            raise ValueError(f"{class_folder}: the class folder has no images; {advice}")
        rows += [Row(image.relative_to(root).as_posix(), class_folder.name, split) for image in images]
    return rows


def _check_names(root: Path, rows: Sequence[Row]) -> None:
    """Raise ValueError for a class without a name, and for two that look the same; warn of near ones."""
    labels = {row.label for row in rows}
    twice = [repr(name) for spelled in together(labels, alike) for name in spelled]
    if twice:
        raise ValueError(
            f"{root}: class folders whose names look the same: {some(twice)} (a space, an accent encoded otherwise, "
            "a character without width); give them one name"
        )
    if any(not alike(label) for label in labels):
        raise ValueError(f"{root}: a class folder's name is only space; rename it")
    warn_of_near_names(root, labels, stacklevel=3)


def _check_runs(root: Path, clutter: list[str]) -> None:
    """Raise ValueError for a run directory below a folder: its curves.png would become an image of a class.

    The names of hidden files and of those that systems leave are added to `clutter`.
    """
    for run in (Path(file.path).parent for file in files_below(root, clutter) if file.name == "config.json"):
        if any((run / name).is_file() for name in ("metrics.jsonl", "model.safetensors")):
            if run == root:
                raise ValueError(
                    f"{root} is a run directory, not one of images; give DATA, such as its config.json has"
                )
            raise ValueError(
                f"{run} is a run directory, whose plots would be read as images; move it out of {root}, and choose "
                "another place for runs with --out"
            )


def _subfolders(folder: Path) -> list[Path]:
    return _named([Path(entry.path) for entry in _visible(folder) if _leads_down(entry, [])])


def image_files(folder: Path) -> list[Path]:
    """Return the images in a folder and below, sorted.

    Warns:
        UserWarning: Files that are not images, or broken links, were skipped.
    """
    entries = list(files_below(folder))
    files = _named([Path(entry.path) for entry in entries if is_file(entry)])
    others = [path.name for path in files if path.suffix.lower() not in extensions() | HEIC]
    others += sorted(entry.name for entry in entries if not is_file(entry) and Path(entry.path).exists())  # pipes
    heic = [path.name for path in files if path.suffix.lower() in HEIC - extensions()]
    _warn_of_broken_links(folder, entries)
    if heic:
        what = count(len(heic), "HEIC image")
        warnings.warn(f"{folder}: skipped {what}: {some(heic)}; HEIC is not read, convert to JPEG", stacklevel=2)
    if others:
        what = "1 file that is not an image" if len(others) == 1 else f"{len(others):,} files that are not images"
        warnings.warn(f"{folder}: skipped {what}: {some(others)}", stacklevel=2)
    return _images(files)


def images_in(folder: Path) -> list[Path]:
    """Return the images in a folder itself, sorted."""
    return _images(_named([Path(entry.path) for entry in _visible(folder) if is_file(entry)]))


def files_below(folder: Path, clutter: list[str] | None = None) -> Iterator[os.DirEntry[str]]:
    """Yield the files and broken links in a folder and below, through links; not hidden ones and what systems leave.

    Args:
        folder: The folder.
        clutter: List for the names of those that are left out; None: they are not listed.
    """
    yield from _files_below(folder, [folder.resolve()], [] if clutter is None else clutter)


def _files_below(folder: str | Path, chain: list[Path], clutter: list[str]) -> Iterator[os.DirEntry[str]]:
    for entry in _visible(folder, clutter):
        if not _is_folder(entry):
            yield entry
        elif _leads_down(entry, chain):
            longer = [*chain, Path(entry.path).resolve()] if entry.is_symlink() else chain
            yield from _files_below(entry.path, longer, clutter)


def _leads_down(entry: os.DirEntry[str], chain: list[Path]) -> bool:
    """Return whether an entry is a folder, and not a link to a folder that contains it (`chain`: links followed)."""
    if not entry.is_symlink() or not _is_folder(entry):
        return _is_folder(entry)
    target, here = Path(entry.path).resolve(), Path(entry.path).parent.resolve()
    return not any(place.is_relative_to(target) for place in (*chain, here))


def is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a file, or a link to one; a link that goes round is not, and raises nothing."""
    return Path(entry.path).is_file() if entry.is_symlink() else entry.is_file()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def _visible(folder: str | Path, clutter: list[str] | None = None) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, and add the names of those that are left out to `clutter`."""
    with os.scandir(folder) as scanned:
        entries = list(scanned)
    if clutter is not None:
        clutter += [entry.name for entry in entries if is_clutter(entry.name)]
    return [entry for entry in entries if not is_clutter(entry.name)]


def _warn_of_broken_links(folder: Path, entries: Sequence[os.DirEntry[str]]) -> None:
    names = sorted(entry.name for entry in entries if entry.is_symlink() and not Path(entry.path).exists())
    if names:
        warnings.warn(f"{folder}: skipped {count(len(names), 'broken link')}: {some(names)}", stacklevel=3)


def _named(paths: list[Path]) -> list[Path]:
    """Sort paths; raise ValueError for a name that no text file can hold."""
    for path in paths:
        if "\n" in path.name or "\r" in path.name:
            raise ValueError(f"the file name {path.name!r} has a line break, which no list can hold; rename the file")
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the file name {os.fsencode(path)!r} is not UTF-8; rename the file") from error
    return sorted(paths)


def _images(files: Sequence[Path]) -> list[Path]:
    return [path for path in files if path.suffix.lower() in extensions()]
