"""Images and caches that change between two runs, or while one reads."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from stochnorm.data import ImageStore, Preprocessing, Row, read_source
from stochnorm.data.images import cache_entry
from stochnorm.data.images.cache import ImageCache
from stochnorm.files import FileStamp

SMALL = Preprocessing(image_size=14)


def store_of(photos: Path, rows: list[Row] | None = None, **options: Any) -> ImageStore:
    source = read_source(photos)
    listed = [row.path for row in source.rows]
    return ImageStore(source.root, rows or source.rows, SMALL, **({"cache": "disk", "listed": listed} | options))


def right(store: ImageStore) -> bool:
    """Return whether the images are those of the files."""
    fresh = Preprocessing(image_size=14)
    return all(torch.equal(store[i], fresh.read(store.root / row.path)) for i, row in enumerate(store.rows))


def cache_of(store: ImageStore) -> ImageCache:
    assert store._cache is not None
    return store._cache


def bitmap(path: Path, shade: int, when: float = 1e9) -> None:
    """Write an image whose file has the same size whatever it shows, with a time of modification."""
    Image.new("RGB", (24, 24), (shade, shade, shade)).save(path)
    os.utime(path, (when, when))


def bitmaps(folder: Path) -> Path:
    """Write bitmaps of two classes whose size and time of modification are equal."""
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for number in range(3):
            bitmap(folder / label / f"{number}.bmp", 10 + number)
    return folder


@pytest.mark.parametrize("how", ["overwritten", "replaced", "moved over"])
@pytest.mark.parametrize("tick", [0, 1e12])  # the clock of the file system: so fine that a stamp tells all, or coarse
def test_an_image_of_the_same_size_and_time_is_decoded_again(
    how: str, tick: float, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_entry, "_TICK", tick)
    photos = bitmaps(tmp_path / "photos")
    assert right(store_of(photos))
    file, other = photos / "a/1.bmp", tmp_path / "other.bmp"
    if how == "overwritten":
        bitmap(file, 200)
    elif how == "replaced":
        file.unlink()
        bitmap(file, 200)
    else:
        bitmap(other, 200)
        other.rename(file)
    decoded.clear()
    after = store_of(photos)
    assert decoded == ["a/1.bmp"]
    assert after[1].unique().tolist() == [200]
    assert right(after)


def test_an_image_whose_stamp_lies_is_known_by_its_content(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that notes no time of a change, or with a clock that was set back."""
    photos = bitmaps(tmp_path / "photos")
    for changed in (0, 4e18):
        stamp = FileStamp(1, 2, int(changed), 3)
        monkeypatch.setattr(FileStamp, "of", lambda _, stamp=stamp: stamp)
        assert right(store_of(photos))
        decoded.clear()
        store_of(photos)
        assert decoded == []
        bitmap(photos / "b/0.bmp", 77 if changed else 99)
        after = store_of(photos)
        assert decoded == ["b/0.bmp"]
        assert right(after)


def test_a_file_that_another_program_cuts_costs_decodings_alone(photos: Path, decoded: list[str]) -> None:
    store = store_of(photos)
    decoded.clear()
    os.truncate(cache_of(store)._path, 4096)
    _ = [store[i] for i in range(30)]
    assert len(decoded) == 30
    assert right(store)
    assert right(store_of(photos))


def test_a_file_that_cannot_be_read_costs_decodings_alone(
    photos: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(photos)
    decoded.clear()

    def pread(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", pread)
    _ = [store[i] for i in range(30)]
    assert len(decoded) == 30
    assert right(store)
