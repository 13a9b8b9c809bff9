"""The size of all caches together is limited."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stochnorm.data import ImageStore, Preprocessing, Row, read_source
from stochnorm.data.images.cache import ImageCache, NoCacheError, cache_limit

SMALL = Preprocessing(image_size=14)


def store_of(photos: Path, rows: list[Row] | None = None, **options: Any) -> ImageStore:
    source = read_source(photos)
    listed = [row.path for row in source.rows]
    return ImageStore(source.root, rows or source.rows, SMALL, **({"cache": "disk", "listed": listed} | options))


def caches(photos: Path, limit: float, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], ImageCache]:
    """Return a function that makes filled caches of 30 images, 31 kB each, of one source or another."""
    monkeypatch.setenv("STOCHNORM_CACHE_GB", str(limit / 1e9))
    paths = [row.path for row in read_source(photos).rows]

    def make(number: int) -> ImageCache:
        cache = ImageCache(photos, paths[number:] + paths[:number], SMALL)
        for path in paths:
            cache.hold(path)
        return cache

    return make


def test_what_was_not_used_for_longest_makes_room(
    photos: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = caches(photos, 110e3, monkeypatch)
    paths = [make(number)._path for number in range(3)]
    for age, path in enumerate(paths):
        os.utime(path, (1000 + age, 1000 + age))
    make(0)  # used again
    last = make(3)._path
    assert set(directory.glob("*.images")) == {paths[0], paths[2], last}


def test_what_is_in_use_stays(photos: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = caches(photos, 80e3, monkeypatch)
    used, idle = make(0), make(1)._path
    os.utime(used._path, (1000, 1000))
    other = make(2)
    assert set(directory.glob("*.images")) == {used._path, other._path}
    assert not idle.exists()
    with pytest.raises(NoCacheError, match=r"may be cached on disk \(STOCHNORM_CACHE_GB"):
        make(3)  # both are in use
    assert set(directory.glob("*.images")) == {used._path, other._path}


def test_a_cache_above_the_limit_is_not_made(
    photos: Path, decoded: list[str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCHNORM_CACHE_GB", "0.00001")
    store = store_of(photos, cache="auto")
    with pytest.warns(UserWarning, match="not kept on disk for the next run: .* of images exceed"):
        store_of(photos, cache="disk")
    decoded.clear()
    _ = [store[i] for i in range(30)]
    assert decoded == []  # in memory
    assert not list(directory.glob("*.images"))


def test_half_of_the_free_disk_stays_free(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(60_000))
    with pytest.raises(NoCacheError, match="at most half of the free space"):
        ImageCache(photos, [row.path for row in read_source(photos).rows], SMALL)


def test_the_limit_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_limit() == 20e9
    for text in ("much", "-1", "nan"):
        monkeypatch.setenv("STOCHNORM_CACHE_GB", text)
        with pytest.raises(
            ValueError, match=f"STOCHNORM_CACHE_GB must be a number of gigabytes, 0 or more, got '{text}'"
        ):
            cache_limit()
