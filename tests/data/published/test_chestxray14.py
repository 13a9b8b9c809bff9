"""NIH ChestX-ray14: generated tables, and the real ones next to the checkout."""

from __future__ import annotations

import csv
import gzip
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm.data import Source, assign_splits, findings, read_source, verify
from stochnorm.data.published.chestxray14 import FINDINGS, list_chestxray14

Count = Callable[[Source], dict[str, int]]


def test_chest_radiographs_are_multi_label_with_patients_as_groups(nih: Path) -> None:
    with pytest.warns(UserWarning, match=r"3 of 14 classes.*20 of 30,805 patients"):
        source = read_source(nih)
    assert source.multi_label
    assert source.classes == ("Cardiomegaly", "Effusion", "Hernia")  # the official order, and only those with images
    rows = {row.path: row for row in source.rows}
    assert rows["images_002/images/00000001_000.png"].label == "Effusion"
    assert rows["images_002/images/00000001_001.png"].label == "Cardiomegaly|Effusion"
    assert rows["images_001/images/00000004_000.png"].label == ""
    assert rows["images_001/images/00000004_000.png"].group == "4"
    assert {int(row.group) <= 14: row.split for row in source.rows} == {True: "train", False: "test"}


def test_radiographs_may_be_in_one_folder_and_without_lists_have_no_split(nih: Path, splits: Count) -> None:
    (nih / "images").mkdir()
    for path in nih.glob("images_*/images/*.png"):
        path.rename(nih / "images" / path.name)
    for name in ("train_val_list.txt", "test_list.txt"):
        (nih / name).unlink()
    with pytest.warns(UserWarning, match=r"neither train_val_list.txt nor test_list.txt in .*split by patient"):
        source = read_source(nih)
    assert {row.split for row in source.rows} == {""}
    assert all(row.path.startswith("images/") for row in source.rows)
    assigned = assign_splits(source.rows, rate=100, val_fraction=0.2, test_fraction=0.2, seed=0, multi_label=True)
    patients = Counter(group for group, _ in {(row.group, row.split) for row in assigned})
    assert len(patients) == 20
    assert set(patients.values()) == {1}


def test_rare_findings_and_those_of_test_images_alone_can_be_left_out(nih: Path) -> None:
    assert list_chestxray14(nih, min_images=7).classes == ("Effusion",)  # 12 images outside the test list; the others 6
    assert {row.label for row in list_chestxray14(nih, min_images=7).rows} == {"", "Effusion"}
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("00000020_000.png,No Finding", "00000020_000.png,Mass"))
    assert "Mass" not in list_chestxray14(nih).classes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Hernia", "Covid", r"Data_Entry_2017.csv:\d+: unknown findings Covid"),
        ("00000002_001.png", "00000002_000.png", "listed before"),
        ("00000002_001.png", "00000099_001.png", "00000099_001.png is in none of train_val_list.txt, test_list.txt"),
        ("Patient ID", "Patient", "must name the columns Image Index, Finding Labels, Patient ID"),
    ],
)
def test_a_bad_table_of_radiographs_is_named(nih: Path, old: str, new: str, message: str) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_source(nih)


def test_one_radiograph_list_alone_or_an_image_in_both_is_an_error(nih: Path) -> None:
    train = (nih / "train_val_list.txt").read_text()
    (nih / "train_val_list.txt").write_text(train + "\n00000020_000.png")
    with pytest.raises(ValueError, match=r"images in train_val_list.txt and test_list.txt: 00000020_000.png"):
        read_source(nih)
    (nih / "train_val_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"nih has no train_val_list.txt; copy"):
        read_source(nih)


def test_patients_in_both_official_lists_are_a_problem(nih: Path) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("00000020_000.png,No Finding,0,20,", "00000020_000.png,No Finding,0,1,"))
    assert any("1 patient in two splits: 1" in problem for problem in verify(nih).problems)


@pytest.mark.parametrize("fault", ["cut", "flipped", "no gzip"])
def test_a_damaged_gzip_file_is_named(nih: Path, fault: str) -> None:
    data = gzip.compress((nih / "Data_Entry_2017.csv").read_bytes())
    damaged = {"cut": data[:60], "flipped": data[:30] + b"\xff" * 30 + data[60:], "no gzip": b"path,label"}[fault]
    (nih / "Data_Entry_2017.csv").unlink()
    (nih / "Data_Entry_2017.csv.gz").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"Data_Entry_2017.csv.gz: cannot be read as a .gz file .*; copy it again"):
        read_source(nih)
    assert "Data_Entry_2017.csv.gz: cannot be read" in verify(nih).problems[0]


@pytest.mark.parametrize("layout", ["images_01/images", "images_001", "images_001/images_001/images", "images/part 1"])
def test_radiographs_are_found_in_any_folder_that_archives_were_unpacked_to(nih: Path, layout: str) -> None:
    (nih / "unpacked").mkdir()
    for path in nih.glob("images_*/images/*.png"):
        path.rename(nih / "unpacked" / path.name)
    for folder in nih.glob("images_*"):
        shutil.rmtree(folder)
    (nih / layout).parent.mkdir(parents=True, exist_ok=True)
    (nih / "unpacked").rename(nih / layout)
    with pytest.warns(UserWarning, match=r"is not the official set: [^;]*$"):  # but for the counts, no problem
        assert {str(Path(row.path).parent) for row in read_source(nih).rows} == {layout}


def test_absent_archives_of_radiographs_are_named(nih: Path) -> None:
    shutil.rmtree(nih / "images_002")
    absent = ", ".join(f"images_{i:03d}" for i in range(2, 13))
    with pytest.raises(FileNotFoundError, match=rf"listed images do not exist under .*; no folder {absent} in "):
        read_source(nih)


def test_real_chest_radiographs_have_their_official_counts(shared: Path, splits: Count) -> None:
    source = list_chestxray14(shared / "data/annotations/NIH_ChestXray14")
    assert splits(source) == {"train": 86524, "test": 25596}
    assert source.classes == FINDINGS
    assert len({row.group for row in source.rows}) == 30805
    train, test = ({row.group for row in source.rows if row.split == split} for split in ("train", "test"))
    assert not train & test
    positives = Counter(name for row in source.rows for name in findings(row.label))
    assert positives["Hernia"] == 227  # the published number of the rarest
    with gzip.open(shared / "data/annotations/NIH_ChestXray14/Data_Entry_2017.csv.gz", "rt") as file:
        none = sum(record["Finding Labels"] == "No Finding" for record in csv.DictReader(file))
    assert sum(not row.label for row in source.rows) == none


def test_real_radiographs_of_682_patients_are_split_by_patient(shared: Path, splits: Count) -> None:
    with pytest.warns(UserWarning, match=r"1,000 of 112,120 images, 682 of 30,805 patients"):
        source = read_source(shared / "data/NIH_1000")
    assert len(source.rows) == 1000
    assigned = assign_splits(source.rows, rate=100, val_fraction=0.2, test_fraction=0.2, seed=0, multi_label=True)
    parts = {split: {row.group for row in assigned if row.split == split} for split in ("train", "val", "test")}
    assert sum(len(groups) for groups in parts.values()) == 682
    assert len(set.union(*parts.values())) == 682
    assert len(parts["test"]) / 682 == pytest.approx(0.2, abs=0.01)
    for split in parts:
        rows = [row for row in assigned if row.split == split]
        positives = Counter(name for row in rows for name in findings(row.label))
        assert all(positives[name] for name in ("Pneumonia", "Infiltration", "Atelectasis", "Edema", "Effusion"))
