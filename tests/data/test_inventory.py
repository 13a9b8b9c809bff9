"""Verification of data without published counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from stochnorm.data import verify


def test_a_folder_per_class_is_counted(photos: Path) -> None:
    report = verify(photos)
    assert report.ok
    assert report.lines() == [
        f"Folder per class in {photos}: complete",
        "found 3 classes, 30 images",
    ]
    for name in ("red", "blue", "green"):
        for split in ("train", "test"):
            (photos / split / name).mkdir(parents=True)
        for i, image in enumerate(sorted((photos / name).glob("*.png"))):
            image.rename(photos / ("train" if i < 7 else "test") / name / image.name)
        (photos / name).rmdir()
    assert verify(photos).found == {"classes": 3, "images": 30, "train": 21, "val": 0, "test": 9}


def test_a_single_class_is_a_problem(photos: Path) -> None:
    for name in ("red", "blue"):
        (photos / name).rename(photos / "green" / name)
    assert verify(photos).problems == ("classification needs at least 2 classes, found only 'green'",)


def test_a_folder_that_cannot_be_read_says_why(photos: Path) -> None:
    (photos / "empty").mkdir()
    report = verify(photos)
    assert not report.ok
    assert report.lines() == [
        f"Folder per class in {photos}: cannot be trained on yet",
        "found nothing",
        f"{photos / 'empty'}: the class folder has no images; add some or delete it",
    ]


def test_missing_and_surplus_images_of_a_manifest_are_named(photos: Path) -> None:
    rows = ["red/000.png,Mass|Edema,1", "red/001.png,,1", "blue/x.png,Edema,2"]
    (photos / "list.csv").write_text("\n".join(["path,labels,group", *rows]))
    report = verify(photos / "list.csv")
    assert report.found == {"classes": 2, "images": 3, "groups": 2}
    assert report.missing == ("blue/x.png",)
    assert len(report.surplus) == 18  # of red/ and blue/, but not of green/
    assert not report.ok
    (photos / "blue/000.png").rename(photos / "blue/x.png")
    assert verify(photos / "list.csv").ok  # a manifest may well list a part


def test_a_manifest_that_cannot_be_read_says_why(photos: Path) -> None:
    (photos / "list.csv").write_text("path,label\nred/000.png,\n")
    assert verify(photos / "list.csv").problems == (
        f"{photos}/list.csv:2: the label of 'red/000.png' is missing; fill it in",
    )
    with pytest.raises(FileNotFoundError, match="no folder per class, and is not a CSV file"):
        verify(photos / "red")
