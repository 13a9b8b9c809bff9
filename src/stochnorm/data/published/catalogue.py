"""The data sets that are known by their files, as one table."""

from __future__ import annotations

from pathlib import Path

from stochnorm.data.folder import read_folder
from stochnorm.data.inventory import Report, report_of
from stochnorm.data.manifest import list_manifest
from stochnorm.data.published.aircraft import AIRCRAFT
from stochnorm.data.published.cars import CARS
from stochnorm.data.published.chestxray14 import CHESTXRAY14
from stochnorm.data.published.cub import CUB
from stochnorm.data.published.dataset import DataSet, verify_official
from stochnorm.data.published.elpv import ELPV

__all__ = ["DATASETS", "recognise", "verify"]

DATASETS: dict[str, DataSet] = {dataset.name: dataset for dataset in (CUB, CARS, AIRCRAFT, CHESTXRAY14, ELPV)}
"""By name; the columns of ``stochnorm ls datasets``."""


def recognise(path: Path) -> tuple[DataSet, Path] | None:
    """The data set that a folder holds, or the folder of its archive's name within; and that folder.

    A part is enough, such as one list or the images without a list: what else there must be, reading says.
    """
    for dataset in DATASETS.values():
        for root in (path, path / dataset.folder):
            if root.is_dir() and dataset.recognise(root):
                return dataset, root.resolve()
    return None


def verify(path: str | Path) -> Report:
    """What is there of a data set on disk, and what is not. Reads no image.

    One in its official format is held against the official counts, lists and class names; a folder per class or a CSV
    manifest has its counts, missing images, and image files beside listed ones.

    Args:
        path: Its folder, or the one that its archive was unpacked in; or a CSV file.

    Raises:
        FileNotFoundError: No data set is there; says which files were looked for.

    Example:
        >>> print("\\n".join(verify("data/CUB_200_2011").lines()))  # doctest: +SKIP
        CUB-200-2011 in data/CUB_200_2011: complete
        found 200 classes, 11,788 images, 5,994 train, 5,794 test
    """
    path = Path(path)
    known = recognise(path)
    if known is not None:
        return verify_official(*known)
    manifest = path.is_file() and path.suffix.lower() == ".csv"
    if not manifest and not (path.is_dir() and any(entry.is_dir() for entry in path.iterdir())):
        wanted = "; ".join(f"{d.title}: {', '.join(d.files)}" for d in DATASETS.values() if d.files)
        raise FileNotFoundError(
            f"{path}: holds the lists of no known data set, nor a folder per class, and is no CSV file; looked for "
            f"{wanted}"
        )
    title = "CSV manifest" if manifest else "Folder per class"
    try:
        return report_of(list_manifest(path) if manifest else read_folder(path), title)
    except (ValueError, OSError) as error:
        return Report(title, path, {}, problems=(" ".join(str(error).split()),))
