"""A list of images, each decoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from stochnorm.data import ImageStore, Preprocessing, Row, read_source

SMALL = Preprocessing(image_size=14, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def broken_files(photos: Path) -> None:
    (photos / "red/000.png").write_bytes(b"not an image")
    whole = (photos / "red/001.png").read_bytes()
    (photos / "red/001.png").write_bytes(whole[: len(whole) // 2])
    (photos / "red/002.png").write_bytes(b"")


def test_images_that_cannot_be_read_are_counted_and_named(photos: Path) -> None:
    broken_files(photos)
    source = read_source(photos)
    with pytest.warns(UserWarning, match=r"skipped 3 of 30 images: .*red/000.png.*red/001.png.*red/002.png"):
        store = ImageStore(source.root, source.rows, SMALL)
    assert len(store) == 27
    assert {row.path for row in source.rows} - {row.path for row in store.rows} == {f"red/00{i}.png" for i in range(3)}


def test_strict_stops_at_the_first_bad_image(photos: Path) -> None:
    broken_files(photos)
    source = read_source(photos)
    with pytest.raises(ValueError, match=r"red/000.png: cannot be read as an image"):
        ImageStore(source.root, source.rows, SMALL, strict=True)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of 1 images can be read"):
        ImageStore(tmp_path, [Row("x.png", "a")], SMALL)


def test_images_kept_in_memory_are_those_on_disk(photos: Path) -> None:
    source = read_source(photos)
    kept, reread = (ImageStore(source.root, source.rows, SMALL, max_bytes=size) for size in (1e9, 0))
    assert all(torch.equal(kept[i], reread[i]) for i in range(30))


@pytest.mark.parametrize("cache", ["disk", "memory", "none"])
def test_images_that_are_all_the_same_are_said(cache: Any, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.bmp"):
        Image.new("RGB", (20, 20), (3, 3, 3)).save(tmp_path / name)
    rows = [Row(name, "x") for name in ("a.png", "b.png", "c.bmp")]
    for _ in range(2):
        with pytest.warns(UserWarning, match="all 3 images have the same pixels: nothing tells their classes"):
            ImageStore(tmp_path, rows, SMALL, cache=cache)
    Image.new("RGB", (20, 20), (3, 3, 9)).save(tmp_path / "c.bmp")
    assert len(ImageStore(tmp_path, rows, SMALL, cache=cache)) == 3
    assert len(ImageStore(tmp_path, rows[:1], SMALL, cache=cache)) == 1
