"""NIH ChestX-ray14: 112,120 frontal chest radiographs of 30,805 patients with 14 findings.

Wang et al., *ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks*, CVPR 2017. Multi-label; the labels were
extracted from reports by text processing, and some are wrong.
"""

from __future__ import annotations

import gzip
import posixpath
import zlib
from collections import Counter
from pathlib import Path

from stochnorm.data.csv_text import read_csv
from stochnorm.data.inventory import image_paths
from stochnorm.data.manifest import Row, Source, findings
from stochnorm.data.published.dataset import DataSet
from stochnorm.data.published.text_lists import check_lists, text_lines
from stochnorm.text import some

__all__ = ["CHESTXRAY14", "FINDINGS", "list_chestxray14"]

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The findings in the order of the paper."""

_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")
_IMAGE = f"{'[0-9]' * 8}_{'[0-9]' * 3}.png"  # patient, follow-up
_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


def list_chestxray14(root: Path, min_images: int = 1) -> Source:
    """Read `Data_Entry_2017.csv` (also `_v2020`, also `.gz`) and the official lists, if they exist.

    Args:
        root: Folder of the data set. Without train_val_list.txt and test_list.txt the rows have no split. Their group
            is the patient, so that images are split by patient.
        min_images: Minimum number of images outside the test list for a finding to be a class. An image with no other
            finding then counts as one without finding.

    Raises:
        FileNotFoundError: Only one of the two lists exists.
        ValueError: A finding is unknown, an image is in none of the lists or in both, or an image is a duplicate.
    """
    table = _table(root)
    columns, records = read_csv(table, _bytes(table))
    names = [column.lower() for column in _COLUMNS]
    if not set(names) <= set(columns):
        raise ValueError(f"{table}: the first line must name the columns {', '.join(_COLUMNS)}; got {columns}")
    # Names are unique, so that it does not matter which folders the archives were unpacked to.
    places = {posixpath.basename(path): path for path in image_paths(root)}
    unknown_place = "images_*" if any(root.glob("images_*/")) else "images"
    splits = _splits(root)
    rows: dict[str, Row] = {}
    for number, record in records:
        name, label, patient = (record[column] for column in names)
        found = [] if label == "No Finding" else findings(label)
        unknown = sorted(set(found) - set(FINDINGS))
        if unknown or not name or not patient or name in rows:
            what = f"unknown findings {some(unknown)}" if unknown else "no image, no patient or an image listed before"
            raise ValueError(f"{table}:{number}: {what} ({name!r}, {label!r}, patient {patient!r}); correct the line")
        if splits is not None and name not in splits:
            raise ValueError(f"{table}:{number}: {name} is in none of {', '.join(_LISTS)}; correct the lists")
        path = places.get(name, f"{unknown_place}/{name}")
        rows[name] = Row(path, "|".join(found), splits[name] if splits else "", patient)
    counts = Counter(name for row in rows.values() if row.split != "test" for name in findings(row.label))
    classes = tuple(name for name in FINDINGS if counts[name] >= max(min_images, 1))
    kept = [row._replace(label="|".join(n for n in findings(row.label) if n in classes)) for row in rows.values()]
    notes = [f"neither {' nor '.join(_LISTS)} in {root}, so images are split by patient"] if splits is None else []
    if not rows.keys() <= places.keys():
        notes += _absent_archives(root)
    return Source(root, kept, classes, multi_label=True, name="chestxray14", notes=tuple(notes))


def _absent_archives(root: Path) -> list[str]:
    """Name the numbered folders that do not exist, if others do."""
    there = {int(number) for path in root.glob("images_*") if (number := path.name[len("images_") :]).isdecimal()}
    absent = [f"images_{i:03d}" for i in range(1, 13) if i not in there]
    return [f"no folder {some(absent, 12)} in {root}"] if there and absent else []


def _table(root: Path) -> Path:
    tables = _tables(root)
    if not tables:
        check_lists(root, ["Data_Entry_2017.csv (or Data_Entry_2017_v2020.csv)"])
    if len(tables) > 1:
        raise ValueError(f"{root}: expected one Data_Entry_2017.csv, found {some([p.name for p in tables])}; keep one")
    return tables[0]


def _tables(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("Data_Entry_2017*.csv*") if path.suffix in (".csv", ".gz"))


def _bytes(table: Path) -> bytes:
    data = table.read_bytes()
    try:
        return gzip.decompress(data) if table.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{table}: cannot be read as a .gz file ({error}); copy it again") from error


def _splits(root: Path) -> dict[str, str] | None:
    """Read the split of each image of the official lists; None without lists."""
    if not any((root / name).is_file() for name in _LISTS):
        return None
    check_lists(root, tuple(_LISTS))
    splits: dict[str, str] = {}
    for name, split in _LISTS.items():
        images = text_lines(root / name)
        both = sorted(image for image in images if splits.get(image, split) != split)
        if both:
            raise ValueError(f"{root}: images in train_val_list.txt and test_list.txt: {some(both)}; correct the lists")
        splits |= dict.fromkeys(images, split)
    return splits


def _recognise(root: Path) -> bool:
    """Return whether a folder has the table, folders of images and a list, or images named as only these are."""
    folders = [folder for folder in root.glob("images*") if folder.is_dir()]
    lists = any((root / name).is_file() for name in _LISTS)
    named = (any(folder.glob(way + _IMAGE)) for folder in folders for way in ("", "*/"))
    return bool(_tables(root)) or bool(folders and lists) or any(named)


def _image_folders(root: Path) -> list[str]:
    """Return the folders in the root that hold radiographs, at any depth."""
    paths = (Path(path) for path in image_paths(root))
    return sorted({path.parts[0] if len(path.parts) > 1 else "." for path in paths if path.match(_IMAGE)}) or ["images"]


CHESTXRAY14 = DataSet(
    name="chestxray14",
    title="NIH ChestX-ray14",
    counts={"classes": 14, "images": 112120, "patients": 30805, "train": 86524, "test": 25596},
    subject="chest radiographs",
    licence="free use with attribution to the NIH Clinical Center",
    homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    files=("Data_Entry_2017.csv", *_LISTS, "images/*.png or images_001/images/*.png to images_012/images/*.png"),
    folder="ChestXray-NIHCC",
    obtain="it is in a Box folder that has to be opened in a browser: get Data_Entry_2017_v2020.csv, "
    "train_val_list.txt, test_list.txt and the twelve archives of images from it",
    recognise=_recognise,
    list_images=list_chestxray14,
    image_folders=_image_folders,
)
