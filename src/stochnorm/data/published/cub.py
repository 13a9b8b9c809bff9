"""CUB-200-2011: 11,788 photographs of 200 bird species.

Wah et al., *The Caltech-UCSD Birds-200-2011 Dataset*, California Institute of Technology, CNS-TR-2011-001.
"""

from __future__ import annotations

from pathlib import Path

from stochnorm.data.manifest import Row, Source
from stochnorm.data.published.dataset import DataSet
from stochnorm.data.published.text_lists import check_lists, pairs
from stochnorm.text import some

__all__ = ["CUB", "list_cub"]

_LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def list_cub(root: Path) -> Source:
    """Read the four lists that number the images; class names are those of `classes.txt`.

    Raises:
        FileNotFoundError: A list does not exist.
        ValueError: An image has no class or split, an unknown class, or another class's folder.
    """
    check_lists(root, _LISTS)
    images, labels, splits, classes = (pairs(root / name) for name in _LISTS)
    for name, entries in zip(_LISTS[1:3], (labels, splits), strict=True):
        if entries.keys() != images.keys():
            odd = sorted(entries.keys() ^ images.keys())
            raise ValueError(f"{root / name}: does not number the images of images.txt: {some(odd)}; correct the lists")
    rows = []
    for number, path in images.items():
        label = classes.get(labels[number])
        if label is None or splits[number] not in ("0", "1"):
            raise ValueError(
                f"{root}: image {number} has class {labels[number]} and split {splits[number]}; the class must be "
                "in classes.txt, and the split 1 (train) or 0 (test)"
            )
        if path.partition("/")[0] != label:
            raise ValueError(f"{root}: image {number} is {path}, but of class {label}; correct the lists")
        rows.append(Row(f"images/{path}", label, "train" if splits[number] == "1" else "test"))
    return Source(root, rows, tuple(classes.values()), name="cub")


def _recognise(root: Path) -> bool:
    """Return whether a folder has two lists (many data sets have a classes.txt), or image folders named as CUB's."""
    lists = sum((root / name).is_file() for name in _LISTS)
    return lists >= 2 or any(path.is_dir() for path in root.glob("images/[0-9][0-9][0-9].*"))


CUB = DataSet(
    name="cub",
    title="CUB-200-2011",
    counts={"classes": 200, "images": 11788, "train": 5994, "test": 5794},
    subject="photographs of birds",
    licence="non-commercial research and education; the photographs belong to their authors",
    homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    files=(*_LISTS, "images/<class>/*.jpg"),
    folder="CUB_200_2011",
    url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    md5="97eceeb196236b17998738112f37df78",
    class_digest="839cf39f663841e7115295328a3bce89f6b483aaa372205d0f0f324dd13d00cd",
    recognise=_recognise,
    list_images=list_cub,
)
