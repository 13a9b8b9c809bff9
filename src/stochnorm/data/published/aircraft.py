"""FGVC-Aircraft 2013b: 10,000 photographs of 100 aircraft variants.

Maji et al., *Fine-Grained Visual Classification of Aircraft*, 2013, arXiv:1306.5151.

torchvision's reader needs a folder called fgvc-aircraft-2013b and reads one split at a time. This one reads the
official lists where they are, and compares them with each other.
"""

from __future__ import annotations

from pathlib import Path

from stochnorm.data.manifest import Row, Source
from stochnorm.data.published.dataset import DataSet
from stochnorm.data.published.text_lists import check_lists, pairs, text_lines
from stochnorm.text import some

__all__ = ["AIRCRAFT", "list_aircraft"]


def list_aircraft(root: Path) -> Source:
    """Read the lists of variants in `root/data`, or in `root` if they are there.

    Without a train and a val list, the images of trainval are training images.

    Raises:
        FileNotFoundError: A list does not exist.
        ValueError: A variant is not in variants.txt, or the trainval list is not train and val together.
    """
    data = _data(root)
    trained = () if (data / "images_variant_trainval.txt").is_file() else ("train", "val")
    check_lists(data, ["variants.txt", *(f"images_variant_{split}.txt" for split in (*trained, "test"))])
    classes = tuple(text_lines(data / "variants.txt"))
    lists = {
        split: pairs(path)
        for split in ("train", "val", "trainval", "test")
        if (path := data / f"images_variant_{split}.txt").is_file()
    }
    if "train" in lists and "val" in lists:
        both = lists["train"] | lists["val"]
        if lists.pop("trainval", both) != both:
            raise ValueError(
                f"{data}: images_variant_trainval.txt is not the train and val lists together; correct the lists"
            )
    else:
        lists = {"train": lists["trainval"], "test": lists["test"]}
    rows: list[Row] = []
    prefix = (data / "images").relative_to(root).as_posix()
    for split, labels in lists.items():
        unknown = sorted(set(labels.values()) - set(classes))
        if unknown:
            raise ValueError(
                f"{data / f'images_variant_{split}.txt'}: variants that are not in variants.txt: {some(unknown)}; "
                "correct the lists"
            )
        rows += [Row(f"{prefix}/{number}.jpg", label, split) for number, label in labels.items()]
    return Source(root, rows, classes, name="aircraft")


def _data(root: Path) -> Path:
    return root if _recognise(root) else root / "data"


def _recognise(data: Path) -> bool:
    """Return whether a folder has lists of variants, or nothing but images named by numbers of seven digits."""
    if (data / "variants.txt").is_file() or any(data.glob("images_variant_*.txt")):
        return True
    folders = [path.name for path in data.iterdir() if path.is_dir()] if data.is_dir() else []
    return folders == ["images"] and any(data.glob(f"images/{'[0-9]' * 7}.jpg"))


AIRCRAFT = DataSet(
    name="aircraft",
    title="FGVC-Aircraft 2013b",
    counts={"classes": 100, "images": 10000, "train": 3334, "val": 3333, "test": 3333},
    subject="photographs of aircraft",
    licence="non-commercial research",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    files=(
        "data/variants.txt",
        *(f"data/images_variant_{split}.txt" for split in ("train", "val", "test")),
        "data/images/*.jpg",
    ),
    folder="fgvc-aircraft-2013b",
    url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
    md5="d4acdd33327262359767eeaa97a4f732",
    recognise=lambda root: _recognise(root) or _recognise(root / "data"),
    list_images=list_aircraft,
    image_folders=lambda root: [(_data(root) / "images").relative_to(root).as_posix()],
)
