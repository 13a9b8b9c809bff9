"""A folder per class, with and without splits."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm.data import Row, read_source
from stochnorm.data.folder import read_folder

Write = Callable[..., list[Path]]


def test_a_folder_per_class(photos: Path) -> None:
    source = read_source(photos)
    assert Counter(row.label for row in source.rows) == {"blue": 10, "green": 10, "red": 10}
    assert source.rows[0] == Row("blue/000.png", "blue", "")
    assert source.root == photos.resolve()


def test_train_valid_test_folders_and_nested_images(tmp_path: Path, write_images: Write) -> None:
    for split in ("train", "valid", "test"):
        for label in ("a", "b"):
            write_images(tmp_path / split / label / "deeper", 2)
    assert Counter(row.split for row in read_source(tmp_path).rows) == {"train": 4, "val": 4, "test": 4}


def test_split_folders_may_be_capitalised(tmp_path: Path, write_images: Write) -> None:
    for split in ("Train", "Test"):
        for label in ("a", "b"):
            write_images(tmp_path / split / label, 2)
    rows = read_source(tmp_path).rows
    assert Counter((row.split, row.label) for row in rows) == {(s, c): 2 for s in ("train", "test") for c in "ab"}


def test_a_class_may_be_called_train(tmp_path: Path, write_images: Write) -> None:
    for label in ("train", "bus"):
        write_images(tmp_path / label, 2)
    assert {row.label for row in read_source(tmp_path).rows} == {"train", "bus"}


def test_files_that_are_not_images_are_skipped_with_a_warning(photos: Path) -> None:
    (photos / "red/notes.txt").write_text("x")
    with pytest.warns(UserWarning, match=r"red: skipped 1 file that is not an image: notes.txt"):
        assert len(read_source(photos).rows) == 30


def test_extensions_may_be_in_upper_case(tmp_path: Path, write_images: Write) -> None:
    for label in "ab":
        write_images(tmp_path / label, 2, suffix=".PNG")
    assert len(read_source(tmp_path).rows) == 4


def test_linked_folders_are_followed_but_not_to_one_that_contains_the_link(
    tmp_path: Path, photos: Path, write_images: Write
) -> None:
    write_images(tmp_path / "else/where", 3)
    (tmp_path / "else/where/back").symlink_to(photos / "red")
    (photos / "red/more").symlink_to(tmp_path / "else/where")
    (photos / "red/up").symlink_to(photos)
    (photos / "loop").symlink_to(photos)
    (photos / "pink").symlink_to(photos / "red")
    counts = Counter(row.label for row in read_source(photos).rows)
    assert counts == {"blue": 10, "green": 10, "red": 13, "pink": 13}


def test_broken_links_are_skipped_with_a_warning(photos: Path) -> None:
    (photos / "red/lost.png").symlink_to(photos / "nowhere.png")
    with pytest.warns(UserWarning, match=r"red: skipped 1 broken link: lost.png"):
        assert len(read_source(photos).rows) == 30
    (photos / "red/lost.png").unlink()
    (photos / "pink").symlink_to(photos / "nowhere")
    with pytest.warns(UserWarning, match=r"photos: skipped 1 broken link: pink"):
        assert len(read_source(photos).rows) == 30


def test_files_that_a_mac_adds_to_archives_are_skipped(photos: Path, write_images: Write) -> None:
    write_images(photos / "__MACOSX/red", 2)
    write_images(photos / "red/__MACOSX", 2)
    with pytest.warns(UserWarning, match="photos: skipped 2 hidden or system files: __MACOSX"):
        assert len(read_source(photos).rows) == 30


@pytest.mark.parametrize("stray", ["trial", "holdout"])
def test_a_folder_next_to_train_that_is_not_a_split_is_refused(tmp_path: Path, write_images: Write, stray: str) -> None:
    for split in ("train", stray):
        for label in "ab":
            write_images(tmp_path / split / label, 2)
    with pytest.raises(ValueError, match=rf"and only val/ and test/ may be next to it; found {stray}: rename"):
        read_source(tmp_path)


def test_a_class_called_train_with_folders_swallows_no_other_class(tmp_path: Path, write_images: Write) -> None:
    for folder in ("train/2001", "bus", "tram"):
        write_images(tmp_path / folder, 2)
    with pytest.raises(ValueError, match=r"found bus, tram: .*if train is a class"):
        read_source(tmp_path)


def test_splits_may_have_their_long_names(tmp_path: Path, write_images: Write) -> None:
    for split in ("training", "validation", "Testing"):
        for label in "ab":
            write_images(tmp_path / split / label, 2)
    rows = read_source(tmp_path).rows
    assert {(row.path.split("/")[0], row.split) for row in rows} == {
        ("training", "train"), ("validation", "val"), ("Testing", "test"),
    }  # fmt: skip
    assert {row.label for row in rows} == {"a", "b"}


@pytest.mark.parametrize("names", [("val", "testing"), ("val", "test")])
def test_splits_without_train_are_not_classes(tmp_path: Path, write_images: Write, names: tuple[str, ...]) -> None:
    for split in names:
        for label in "ab":
            write_images(tmp_path / split / label, 2)
    with pytest.raises(ValueError, match="hold folders as splits do, but there is no split called train"):
        read_source(tmp_path)


@pytest.mark.parametrize("file", ["metrics.jsonl", "model.safetensors"])
def test_a_run_among_the_classes_is_refused(photos: Path, write_images: Write, file: str) -> None:
    run = photos / "runs/photos-stochnorm-1a2b3c4d"
    write_images(run, 1)
    for name in ("config.json", file):
        (run / name).write_text("{}")
    with pytest.raises(ValueError, match=r"runs/photos-stochnorm-1a2b3c4d is a run directory.*move it out of .*photos"):
        read_source(photos)


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="file names are Unicode there")
@pytest.mark.parametrize("name", [b"caf\xe9.png", b"notes\xe9.txt"])
def test_a_file_name_that_is_not_utf_8_is_an_error(photos: Path, name: bytes) -> None:
    (photos / "red/000.png").rename(photos / "red" / os.fsdecode(name))
    with pytest.raises(ValueError, match=r"\\xe9.* is not UTF-8; rename the file") as caught:
        read_source(photos)
    str(caught.value).encode()  # the message itself can be printed


@pytest.mark.skipif(sys.platform == "win32", reason="file names have no line breaks there")
def test_a_file_name_with_a_line_break_is_an_error(photos: Path) -> None:
    (photos / "red/000.png").rename(photos / "red/0\n0.png")
    with pytest.raises(ValueError, match=r"'0\\n0.png' has a line break"):
        read_source(photos)


def test_a_class_without_training_images_is_named(tmp_path: Path, write_images: Write) -> None:
    for split, labels in (("train", "ab"), ("test", "abc")):
        for label in labels:
            write_images(tmp_path / split / label, 2)
    with pytest.raises(ValueError, match="classes without training images: c"):
        read_source(tmp_path)


@pytest.mark.parametrize(("one", "other"), [("train", "TRAIN"), ("val", "valid"), ("Val", "validation")])
def test_two_folders_for_one_split_are_refused(one: str, other: str, photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "splits"
    for name in {"train", one, other}:
        shutil.copytree(photos, root / name)
    split = "train" if one == "train" else "val"
    with pytest.raises(ValueError, match=rf"{other}.* are all read as the split {split}; make them one folder"):
        read_folder(root)


def test_a_pipe_among_images_is_named_and_not_waited_for(photos: Path) -> None:
    os.mkfifo(photos / "red/pipe.png")
    with pytest.warns(UserWarning, match=r"skipped 1 file that is not an image: pipe.png"):
        assert len(read_folder(photos).rows) == 30


def test_a_run_directory_is_no_images(photos: Path) -> None:
    for name in ("config.json", "metrics.jsonl"):
        (photos / name).write_text("{}")
    with pytest.raises(ValueError, match="is a run directory, not one of images; give DATA"):
        read_folder(photos)
