"""Files with the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm import FinetuneConfig, finetune
from stochnorm.data import Row, verify
from stochnorm.data.copies import copies, warnings_of


def test_copies_are_found_by_their_bytes_and_not_by_size_or_beginning(tmp_path: Path) -> None:
    contents = {
        "a": b"x" * 9000, "b": b"x" * 9000, "c": b"x" * 8999 + b"y", "d": b"y" * 9000, "e": b"", "f": b"", "g": b"z",
    }  # fmt: skip
    files = [tmp_path / name for name in contents]
    for file in files:
        file.write_bytes(contents[file.name])
    found = copies([*files, tmp_path / "a", tmp_path / "missing"])
    assert [[path.name for path in group] for group in found] == [["a", "b"]]


def test_copies_are_told_by_split_and_by_class(tmp_path: Path) -> None:
    contents = {"1": b"one", "2": b"one", "3": b"two", "4": b"two", "5": b"six", "6": b"ten", "7": b"ten", "8": b"six"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    splits = {"1": "train", "2": "test", "3": "val", "4": "test", "5": "train", "6": "train", "7": "train", "8": "val"}
    rows = [Row(name, "b" if name == "7" else "a", split) for name, split in splits.items()]
    train_test, train_val, val_test, classes = warnings_of(tmp_path, rows)
    assert train_test.startswith("1 of 2 test images copied byte for byte from train images, so scores are too")
    assert "2 = 1" in train_test
    assert train_val.startswith("1 of 2 val images copied byte for byte from train") and "8 = 5" in train_val
    assert val_test.startswith("1 of 2 test images copied byte for byte from val") and "4 = 3" in val_test
    assert classes.startswith("1 image under several classes, byte for byte the same: 6 (a) = 7 (b)")
    undivided = warnings_of(tmp_path, [row._replace(split="") for row in rows])
    assert undivided[0].startswith("4 images copied byte for byte from others, which a draw may put into training")
    assert warnings_of(tmp_path, [rows[0], rows[2], rows[4]]) == []


def test_training_and_verify_warn_of_copies(
    photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    for image in sorted((photos / "red").iterdir()):
        for number in (1, 2):
            shutil.copy(image, image.with_name(f"{image.stem}-{number}.png"))
    shutil.copy(photos / "red/000.png", photos / "blue/red.png")
    report = verify(photos)
    assert report.ok
    assert report.notes[0].startswith("21 images copied byte for byte from others")
    assert report.notes[1].startswith("1 image under several classes")
    assert any("blue/red.png (blue) = red/000" in line for line in report.lines())
    with pytest.warns(UserWarning) as caught:
        finetune(config(photos, tmp_path / "run", steps=2, eval_every=0), quiet=True)
    said = "\n".join(str(warning.message) for warning in caught)
    assert "test images copied byte for byte from train images, so scores are too optimistic: red/" in said
    assert "1 image under several classes" in said


def test_a_search_reads_no_test_image_to_find_copies(
    photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    test = photos / "test/red"
    for split in ("train", "val"):
        (photos / split).mkdir()
    for name in ("blue", "green", "red"):
        (photos / name).rename(photos / "train" / name)
        (photos / "val" / name).mkdir()
        (photos / "train" / name / "000.png").rename(photos / "val" / name / "000.png")
    test.mkdir(parents=True)
    shutil.copy(photos / "train/red/001.png", test)
    finetune(config(photos, tmp_path / "run", steps=2, eval_every=0), quiet=True, test=False)
    assert not recwarn.list
