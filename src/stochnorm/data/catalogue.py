"""The data sets that are known by their files, as one table."""

from __future__ import annotations

from pathlib import Path

from stochnorm.data.aircraft import AIRCRAFT
from stochnorm.data.cars import CARS
from stochnorm.data.chestxray14 import CHESTXRAY14
from stochnorm.data.cub import CUB
from stochnorm.data.elpv import ELPV
from stochnorm.data.official import DataSet, Report, verify_official

__all__ = ["DATASETS", "recognise", "verify"]

DATASETS: dict[str, DataSet] = {dataset.name: dataset for dataset in (CUB, CARS, AIRCRAFT, CHESTXRAY14, ELPV)}
"""By name; the columns of ``stochnorm ls datasets``."""


def recognise(path: Path) -> tuple[DataSet, Path] | None:
    """The data set whose lists lie in a folder, or in the folder of its archive's name within; and that folder."""
    for dataset in DATASETS.values():
        for root in (path, path / dataset.folder):
            if root.is_dir() and dataset.recognise(root):
                return dataset, root.resolve()
    return None


def verify(path: str | Path) -> Report:
    """Hold a data set on disk against the official counts, lists and class names. Reads no image.

    Args:
        path: Its folder, or the one that its archive was unpacked in.

    Raises:
        FileNotFoundError: No known data set is there; says which files were looked for.

    Example:
        >>> print("\\n".join(verify("data/CUB_200_2011").lines()))  # doctest: +SKIP
        CUB-200-2011 in data/CUB_200_2011: complete
        found 200 classes, 11,788 images, 5,994 train, 5,794 test
    """
    known = recognise(Path(path))
    if known is None:
        wanted = "; ".join(f"{d.title}: {', '.join(d.files)}" for d in DATASETS.values() if d.files)
        raise FileNotFoundError(f"{path}: holds the lists of no known data set; looked for {wanted}")
    return verify_official(*known)
