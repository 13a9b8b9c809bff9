"""Readers of DATA: a folder, a CSV file or a published data set."""

from __future__ import annotations

from pathlib import Path

from stochnorm.data.folder import read_folder
from stochnorm.data.inventory import too_few_classes
from stochnorm.data.manifest import Source, list_manifest, read_manifest
from stochnorm.data.published.catalogue import BY_NAME, DATASETS, recognise
from stochnorm.data.published.official import list_official, read_official
from stochnorm.files import refuse_url

__all__ = ["check_classes", "list_images", "read_images", "read_source"]


def read_source(data: str | Path) -> Source:
    """Read labelled images to train on: their files exist, and there are at least two classes.

    A published data set in its official format is recognised by its files; one that comes with a package is read by
    its name. [stochnorm.data.DATASETS][] has all of them.

    Args:
        data: Folder with a folder per class, CSV manifest, folder of a published data set, or name of one.

    Raises:
        FileNotFoundError: The file, folder or name does not exist, or listed images do not.
        ValueError: There are fewer than two classes, or the images are not in a known layout.
    """
    source = read_images(data)
    check_classes(source, data)
    return source


def read_images(data: str | Path) -> Source:
    """Read labelled images whose files exist, of any number of classes; see [stochnorm.data.source.read_source][]."""
    path = Path(data)
    if _is_manifest(path):
        return read_manifest(path)
    known = recognise(data)
    return read_official(*known) if known else read_folder(_folder(path))


def list_images(data: str | Path) -> Source:
    """List labelled images as [stochnorm.data.source.read_images][] does; listed images need not exist."""
    path = Path(data)
    if _is_manifest(path):
        return list_manifest(path)
    known = recognise(data)
    return list_official(*known) if known else read_folder(_folder(path))


def check_classes(source: Source, data: str | Path) -> None:
    """Raise ValueError if a source has too few classes to train on."""
    if problem := too_few_classes(source):
        raise ValueError(f"{data}: {problem}")


def _is_manifest(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".csv"


def _folder(path: Path) -> Path:
    """Return the path of a folder; raise an error that says what DATA can be if it is not one."""
    if path.is_dir():
        return path
    refuse_url(path)
    formats = ", ".join(name for name in DATASETS if name not in BY_NAME)
    data = (
        "DATA is a folder with a folder per class, a CSV file with the columns path,label, the folder of a published "
        f"data set ({formats}), or one of: {', '.join(BY_NAME)}"
    )
    if path.is_file():
        raise ValueError(f"{path}: is a single file; {data}. To classify one image, use stochnorm predict")
    kind = "CSV file" if path.suffix.lower() == ".csv" else "folder"
    raise FileNotFoundError(f"{path}: no such {kind}; {data}")
