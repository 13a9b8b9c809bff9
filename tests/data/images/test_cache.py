"""Decoded images on disk: shared by all runs, and never wrong."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import stochnorm.data.images.cache as module
from stochnorm.data import ImageStore, Preprocessing, Row, read_source
from stochnorm.data.images.cache import ImageCache
from stochnorm.data.images.cache_entry import SIZE

SMALL = Preprocessing(image_size=14)


BYTES = 3 * 16 * 16


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


def overwrite(store: ImageStore, place: int, data: bytes) -> None:
    with cache_of(store)._path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def slot(store: ImageStore, number: int) -> int:
    return cache_of(store)._slots + number * BYTES


def entry(number: int) -> int:
    return module._PAGE + number * SIZE


def start(work: Callable[..., Any], *arguments: Any) -> multiprocessing.Process:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking with idle threads
        process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
        process.start()
    return process  # type: ignore[return-value]


def test_the_second_store_of_the_same_images_decodes_nothing(photos: Path, decoded: list[str]) -> None:
    first = store_of(photos)
    assert len(decoded) == 30
    assert right(first)
    decoded.clear()
    second = store_of(photos)
    images = [second[i] for i in range(30)]
    assert decoded == []
    assert all(torch.equal(image, first[i]) for i, image in enumerate(images))


def test_runs_on_other_parts_of_a_source_share_its_slots(photos: Path, decoded: list[str], directory: Path) -> None:
    rows = read_source(photos).rows
    store_of(photos, rows[:20])
    other = store_of(photos, rows[10:][::-1])
    assert sorted(decoded) == sorted(row.path for row in rows)  # each once
    assert right(other)
    assert len(list(directory.glob("*.images"))) == 1


@pytest.mark.parametrize("other", [Preprocessing(28), Preprocessing(14, interpolation="bicubic")])
def test_another_size_or_interpolation_is_another_file(photos: Path, directory: Path, other: Preprocessing) -> None:
    store_of(photos)
    source = read_source(photos)
    store = ImageStore(source.root, source.rows, other, cache="disk")
    assert torch.equal(store[0], other.read(photos / source.rows[0].path))
    assert len(list(directory.glob("*.images"))) == 2


def test_an_image_that_changed_is_decoded_again(photos: Path, decoded: list[str]) -> None:
    before = store_of(photos)
    old = before[20]
    Image.new("RGB", (24, 24), (9, 8, 7)).save(photos / "red/000.png")
    decoded.clear()
    after = store_of(photos)
    assert decoded == ["red/000.png"]
    assert not torch.equal(after[20], old)
    assert torch.equal(before[20], after[20])  # what the slot held is gone, so the file is read
    assert decoded == ["red/000.png"] * 2
    assert right(after)


def test_a_slot_that_is_being_replaced_is_not_taken(photos: Path) -> None:
    store = store_of(photos)
    overwrite(store, entry(3), bytes(SIZE))  # as its writer begins
    overwrite(store, slot(store, 3), b"half")
    assert right(store)


@pytest.mark.parametrize("byte", [0, BYTES - 1])
def test_a_damaged_byte_is_noticed(photos: Path, decoded: list[str], byte: int) -> None:
    store = store_of(photos)
    value = cache_of(store)._bytes(7)[byte]
    overwrite(store, slot(store, 7) + byte, bytes([value ^ 1]))
    decoded.clear()
    again = store_of(photos)
    assert len(decoded) == 1
    assert right(again)
    decoded.clear()
    store_of(photos)
    assert decoded == []


def test_bytes_without_an_entry_and_an_entry_without_bytes_do_not_count(photos: Path, decoded: list[str]) -> None:
    rows = read_source(photos).rows
    whole = store_of(photos)
    entries = cache_of(whole)._read(30 * SIZE, entry(0))
    cache_of(whole)._path.unlink()
    part = store_of(photos, rows[:10])
    overwrite(part, slot(part, 10), b"\x07" * BYTES)
    overwrite(part, entry(11), entries[11 * SIZE :])  # all that follow
    decoded.clear()
    again = store_of(photos)
    assert len(decoded) == 20
    assert right(again)


@pytest.mark.parametrize("content", [b"", b"foreign", "half", "other header"])
def test_a_truncated_or_foreign_file_is_replaced(photos: Path, decoded: list[str], content: bytes | str) -> None:
    store = store_of(photos)
    path = cache_of(store)._path
    del store
    whole = path.read_bytes()
    contents = {"half": whole[: len(whole) // 2], "other header": b"x" + whole[1:]}
    path.unlink()
    path.write_bytes(content if isinstance(content, bytes) else contents[content])
    decoded.clear()
    again = store_of(photos)
    assert len(decoded) == 30
    assert right(again)
    decoded.clear()
    store_of(photos)
    assert decoded == []


def test_images_that_cannot_be_read_are_left_out_each_time(photos: Path, decoded: list[str]) -> None:
    (photos / "red/000.png").write_bytes(b"not an image")
    (photos / "red/001.png").unlink()
    rows = [*read_source(photos).rows, Row("red/001.png", "red")]
    listed = [row.path for row in rows]
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"skipped 2 of 30 images: .*red/000.png.*red/001.png"):
            store = store_of(photos, rows, listed=listed)
        assert len(store) == 28
        assert right(store)
    with pytest.raises(ValueError, match=r"red/000.png: cannot be read as an image"):
        store_of(photos, rows, listed=listed, strict=True)


def test_a_directory_that_cannot_be_written_is_one_warning(
    photos: Path, decoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"images are not kept on disk .*; set XDG_CACHE_HOME") as caught:
        store = store_of(photos, cache="auto")
    assert len(caught) == 1
    _ = [store[i] for i in range(30)]
    assert len(decoded) == 30  # from memory


@pytest.mark.parametrize("max_bytes", [1e9, 0])
def test_a_disk_that_becomes_full_is_one_warning(
    photos: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, max_bytes: float
) -> None:
    write, left, lock = os.pwrite, module._PAGE + 10 * (BYTES + 3 * SIZE), threading.Lock()

    def pwrite(descriptor: int, data: bytes, place: int) -> int:
        nonlocal left
        with lock:  # threads write side by side
            if not left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = write(descriptor, data[:left], place)
            left -= written
            return written

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.warns(UserWarning, match=r"not kept on disk for the next run: .*No space left on device") as caught:
        store = store_of(photos, max_bytes=max_bytes)
    assert len(caught) == 1
    decoded.clear()
    _ = [store[i] for i in range(30)]
    on_disk = len(cache_of(store)._entries)
    assert 5 < on_disk < 25
    assert len(decoded) == (0 if max_bytes else 30 - on_disk)
    assert right(store)
    monkeypatch.undo()


def test_a_write_that_takes_nothing_is_an_error(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    with file.open("wb") as opened, monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: 0)
        with pytest.raises(OSError, match=r"none of 4 bytes were written; is the disk full\?"):
            module.write_all(opened.fileno(), b"four", 7)
    assert file.read_bytes() == b""
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.warns(UserWarning, match="images are not kept on disk .*none of .* bytes were written"):
        assert right(store_of(photos))


def test_without_a_cache_each_use_decodes(photos: Path, decoded: list[str], directory: Path) -> None:
    store = store_of(photos, cache="none")
    _ = store[0], store[0]
    assert len(decoded) == 32
    assert not directory.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_fill_a_file_at_once_leave_the_right_bytes(photos: Path, decoded: list[str]) -> None:
    barrier = multiprocessing.get_context("fork").Barrier(2)

    def fill() -> None:
        barrier.wait(60)
        os._exit(0 if right(store_of(photos)) else 1)

    processes = [start(fill), start(fill)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    store = store_of(photos)
    assert decoded == []
    assert right(store)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("writes", [5, 6, 7])  # three an image after the header: the entry cleared, bytes, entry
def test_a_process_killed_while_it_writes_leaves_nothing_wrong(photos: Path, writes: int) -> None:
    def die() -> None:
        original, done = module.write_all, 0

        def write(descriptor: int, data: bytes, place: int) -> None:
            nonlocal done
            done += 1
            if done == writes:
                original(descriptor, data[: len(data) // 2], place)
                os.kill(os.getpid(), signal.SIGKILL)
            original(descriptor, data, place)

        module.write_all = write
        cache = ImageCache(photos, [row.path for row in read_source(photos).rows], SMALL)
        for path in cache._numbers:
            cache.hold(path)

    process = start(die)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert right(store_of(photos))


def test_a_worker_process_opens_the_file_itself(photos: Path, decoded: list[str]) -> None:
    store = store_of(photos)
    decoded.clear()
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301 (as processes that are not forked get it)
    assert all(torch.equal(copy[i], store[i]) for i in range(30))
    assert decoded == []
    path = cache_of(store)._path
    path.unlink()
    assert right(pickle.loads(pickle.dumps(store)))  # noqa: S301
    path.write_bytes(b"short")
    assert right(pickle.loads(pickle.dumps(store)))  # noqa: S301
