"""The published data sets, in one table. To add one: write its file, and add its line here."""

from __future__ import annotations

from pathlib import Path

from stochnorm.data.published.aircraft import AIRCRAFT
from stochnorm.data.published.cars import CARS
from stochnorm.data.published.chestxray14 import CHESTXRAY14
from stochnorm.data.published.cub import CUB
from stochnorm.data.published.dataset import DataSet
from stochnorm.data.published.elpv import ELPV
from stochnorm.data.published.groceries import GROCERIES

__all__ = ["BY_NAME", "DATASETS", "recognise"]

DATASETS: dict[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        CUB,
        CARS,
        AIRCRAFT,
        CHESTXRAY14,
        ELPV,
        GROCERIES,
    )
}
"""All data sets by name, in the order of `stochnorm ls datasets`."""

BY_NAME = tuple(dataset.name for dataset in DATASETS.values() if dataset.installed is not None)
"""Names of the data sets that come with a package, so that DATA can be the name."""


def recognise(data: str | Path) -> tuple[DataSet, Path] | None:
    """Return the data set in a folder, or of a name, and its folder; None if it is not a published one.

    The folder may also contain the one that the archive unpacks to. A part of the files is enough, such as one list, or
    the images without a list: reading says what is missing.

    Raises:
        FileNotFoundError: `data` is the name of a data set whose package is not installed.
    """
    path = Path(data)
    if not path.is_dir():
        dataset = DATASETS.get(str(data))
        return None if dataset is None or dataset.installed is None else (dataset, dataset.installed())
    for dataset in DATASETS.values():
        for root in (path, path / dataset.folder):
            if root.is_dir() and dataset.recognise(root):
                return dataset, root.resolve()
    return None
