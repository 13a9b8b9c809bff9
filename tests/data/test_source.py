"""Readers of DATA."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm.data import DATASETS, DataSet, list_images, read_images, read_source, verify
from stochnorm.data.folder import read_folder

Write = Callable[..., list[Path]]


def test_numbers_as_classes_are_sorted_by_their_value(tmp_path: Path, write_images: Write) -> None:
    for label in ("10", "9", "100"):
        write_images(tmp_path / label, 1)
    assert read_source(tmp_path).classes == ("9", "10", "100")
    write_images(tmp_path / "b", 1)
    assert read_source(tmp_path).classes == ("10", "100", "9", "b")


def test_bad_folders_are_named(tmp_path: Path, photos: Path, write_images: Write) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(ValueError, match=r"photos/empty: the class folder has no images"):
        read_source(photos)
    write_images(tmp_path / "loose", 2)
    with pytest.raises(ValueError, match=r"loose: expected a folder per class, found only loose images"):
        read_source(tmp_path / "loose")
    write_images(tmp_path / "one/cat", 2)
    with pytest.raises(ValueError, match=r"at least 2 classes, found only 'cat'"):
        read_source(tmp_path / "one")
    write_images(tmp_path / "one", 1)
    with pytest.raises(ValueError, match=r"1 image next to the class folders \(000.png"):
        read_source(tmp_path / "one")
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; DATA is"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"000.png: is a single file; DATA is a folder .* use stochnorm predict"):
        read_source(photos / "red/000.png")


def test_only_training_needs_two_classes_and_only_lists_need_no_images(photos: Path) -> None:
    (photos / "list.csv").write_text("path,label\nred/000.png,red\n")
    assert read_images(photos / "list.csv") == list_images(photos / "list.csv")
    with pytest.raises(ValueError, match=r"list.csv: classification needs at least 2 classes, found only 'red'"):
        read_source(photos / "list.csv")
    (photos / "red/000.png").unlink()
    assert [row.path for row in list_images(photos / "list.csv").rows] == ["red/000.png"]
    for read in (read_source, read_images):
        with pytest.raises(FileNotFoundError, match="1 of 1 listed images do not exist"):
            read(photos / "list.csv")


@pytest.mark.filterwarnings("ignore:.*is not the official set")
def test_the_lists_of_a_published_set_are_read_without_its_images(
    tmp_path: Path, write_official: Callable[[str, Path], Path]
) -> None:
    folder = write_official("cub", tmp_path / "cub")
    rows = read_source(folder).rows
    shutil.rmtree(folder / "images")
    assert list_images(folder).rows == rows
    with pytest.raises(FileNotFoundError, match="20 of 20 listed images do not exist"):
        read_images(folder)


def test_a_set_of_a_package_is_read_by_its_name(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = DataSet(
        name="mine",
        title="My photographs",
        counts={"classes": 3, "images": 30},
        licence="",
        homepage="",
        files=(),
        installed=lambda: photos,
        list_images=read_folder,
        image_folders=lambda root: ["."],
    )
    monkeypatch.setitem(DATASETS, "mine", mine)
    assert read_source("mine").rows == read_source(photos).rows
    assert verify("mine").lines() == [f"My photographs in {photos}: complete", "found 3 classes, 30 images"]
    (photos / "red/000.png").unlink()
    with pytest.warns(UserWarning, match="My photographs in .* is not the official set: 29 of 30 images"):
        read_source("mine")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stochnorm.data.published.elpv.find_spec", lambda name: None)
    for read in (read_source, list_images, verify):
        with pytest.raises(FileNotFoundError, match=r"comes with a package: pip install 'stochnorm\[elpv\]'"):
            read("elpv")
