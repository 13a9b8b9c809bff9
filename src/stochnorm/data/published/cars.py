"""Stanford Cars: 16,185 photographs of 196 car models.

Krause et al., *3D Object Representations for Fine-Grained Categorization*, 3dRR workshop at ICCV 2013.

torchvision's reader needs a folder called stanford_cars and the labels of the test images, which the official devkit
does not have. This one reads the official files where they are, also without the test labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from stochnorm.data.manifest import Row, Source
from stochnorm.data.published.dataset import DataSet

__all__ = ["CARS", "list_cars"]

_META, _TRAIN = "cars_meta.mat", "cars_train_annos.mat"
_TEST, _UNLABELLED = "cars_test_annos_withlabels.mat", "cars_test_annos.mat"


def list_cars(root: Path) -> Source:
    """Read the .mat files of the devkit, in `root` or `root/devkit`.

    Raises:
        FileNotFoundError: cars_meta.mat or cars_train_annos.mat does not exist.
        ValueError: A file is not such an annotation, or a class is unknown.
    """
    missing = [name for name in (_META, _TRAIN) if _find(root, name) is None]
    if missing:
        raise FileNotFoundError(
            f"neither {root} nor {root / 'devkit'} has {' and '.join(missing)}; copy them from the devkit"
        )
    classes = tuple(str(name) for name in _load(root, _META, "class_names"))
    rows, notes = _rows(root, _TRAIN, "train", classes), []
    if _find(root, _TEST) is not None:
        rows += _rows(root, _TEST, "test", classes)
    else:
        notes.append(
            f"{_TEST} is neither in {root} nor in {root / 'devkit'}"
            + (f", and {_UNLABELLED} has no classes" if _find(root, _UNLABELLED) else "")
            + ", so the official test images cannot be used"
        )
    return Source(root, rows, classes, name="cars", notes=tuple(notes))


def _rows(root: Path, name: str, split: str, classes: tuple[str, ...]) -> list[Row]:
    rows = []
    for entry in _load(root, name, "annotations"):
        try:
            number, file = int(entry["class"]), str(entry["fname"])
        except (ValueError, IndexError, TypeError) as error:
            raise ValueError(f"{_find(root, name)}: an annotation has no class or fname ({error})") from error
        if not 1 <= number <= len(classes):
            raise ValueError(f"{_find(root, name)}: {file} has class {number}; {_META} names 1 to {len(classes)}")
        rows.append(Row(f"cars_{split}/{file}", classes[number - 1], split))
    return rows


def _load(root: Path, name: str, variable: str) -> Any:
    path = _find(root, name)
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True)[variable])
    except Exception as error:  # SciPy raises errors of many kinds for damaged bytes
        raise ValueError(f"{path}: cannot be read as a .mat file with {variable} ({error}); copy it again") from error


def _find(root: Path, name: str) -> Path | None:
    return next((path for path in (root / name, root / "devkit" / name) if path.is_file()), None)


def _recognise(root: Path) -> bool:
    """Return whether a folder has one of the devkit's files, or both folders of images."""
    lists = any(_find(root, name) for name in (_META, _TRAIN, _TEST, _UNLABELLED, "cars_annos.mat"))
    return lists or all((root / name).is_dir() for name in ("cars_train", "cars_test"))


CARS = DataSet(
    name="cars",
    title="Stanford Cars",
    counts={"classes": 196, "images": 16185, "train": 8144, "test": 8041},
    subject="photographs of cars",
    licence="non-commercial research and education",
    homepage="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    files=(f"devkit/{_META}", f"devkit/{_TRAIN}", _TEST, "cars_train/*.jpg", "cars_test/*.jpg"),
    folder="stanford_cars",
    obtain="its server is offline; get a copy of cars_train.tgz, cars_test.tgz, car_devkit.tgz and "
    "cars_test_annos_withlabels.mat from someone who has them",
    class_digest="93d089469409bbd00725ce041797cad929e156fba50c3e19a0f49ef65efcb990",
    recognise=_recognise,
    list_images=list_cars,
    image_folders=lambda root: ["cars_train", "cars_test"] if _find(root, _TEST) else ["cars_train"],
)
