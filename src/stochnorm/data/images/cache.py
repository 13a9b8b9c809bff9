"""Decoded images in a file that all runs on a machine share: each image is decoded once."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL
import torch
from torch import Tensor

from stochnorm.data.images.cache_entry import SIZE, Entry, checksum, digest_of
from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.files import FileStamp, cache_directory, locked, private_directory, write_all

if sys.platform != "win32":
    import fcntl

__all__ = ["ImageCache", "NoCacheError", "cache_limit"]

_VERSION = 2  # to raise when the same file decodes to other bytes, or the layout changes
_PAGE = 4096


class NoCacheError(OSError):
    """Error for a cache that is not wanted: it would be too large, or the system does not support it."""


def cache_limit() -> float:
    """Return the maximum size of all caches together, in bytes: `$STOCHNORM_CACHE_GB` gigabytes (1e9), by default 20.

    Raises:
        ValueError: The variable is not a number of at least 0.
    """
    text = os.environ.get("STOCHNORM_CACHE_GB") or "20"
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise ValueError(f"STOCHNORM_CACHE_GB must be a number of gigabytes, 0 or more, got {text!r}")
    return limit * 1e9


class ImageCache:
    """The resized images of one source, in a file in the user's cache directory.

    The file has a slot for each image of the source and a table with an entry for each slot: the stamp of the image's
    file (size, times of modification and change, inode), a digest of its content where the stamp may lie, and a
    checksum of the slot. A slot is used only if all of them match, and its entry is written after its bytes. So a
    killed process, two processes that fill a slot at once, a changed image or a damaged file cost a decoding and never
    give a wrong image. The file is read by system calls and not mapped: one that is cut or cannot be read costs a
    decoding, too.

    The file is sparse: slots take up space as they are filled. All caches together stay below
    [stochnorm.data.images.cache.cache_limit][] and half of the disk's free space. To make room for a new cache, the
    least recently used ones are removed, except those in use.

    Args:
        root: Folder that the paths are relative to.
        paths: Paths of all images of the source, so that runs on other parts of it share the file.
        preprocessing: Size of the images.

    Attributes:
        failure: Error of the last image that could not be written; None if all were written.

    Raises:
        NoCacheError: The cache would be larger than allowed.
        OSError: The directory or the file cannot be written.
    """

    def __init__(self, root: Path, paths: Sequence[str], preprocessing: Preprocessing) -> None:
        self.failure: OSError | None = None
        self._root, self._preprocessing = root, preprocessing
        self._numbers = {path: number for number, path in enumerate(paths)}
        self._entries: dict[str, Entry] = {}  # of the slots that this process has checked or written
        self._slot = 3 * preprocessing.resize**2
        self._slots = _PAGE + math.ceil(len(paths) * SIZE / _PAGE) * _PAGE
        self._size = self._slots + len(paths) * self._slot

        settings = [_VERSION, PIL.__version__, str(root.resolve()), *preprocessing.kind, list(paths)]
        key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        directory = cache_directory("images")
        self._path = directory / f"{key[:32]}.images"
        if sys.platform == "win32":
            raise NoCacheError("images are cached on disk on Linux and macOS only")
        private_directory(directory)
        with locked(directory / ".lock", timeout=60):  # held for a moment only
            _make_room(self._path, self._size)
            self._attach(_open(self._path, f"stochnorm images {key}\n".encode(), self._size))

    def hold(self, path: str) -> Tensor | None:
        """Put an image into the file, unless the file has it.

        Returns:
            None; or the image, if it could not be written.

        Raises:
            ValueError: The image cannot be read.
        """
        number, file = self._numbers[path], self._root / path
        try:
            stamp = FileStamp.of(file)  # before the image is read: it may change meanwhile
            digest = digest_of(file, stamp)
            entry = self._entry(number)
            found = entry.is_of(file, stamp, digest) and entry.checksum == checksum(self._bytes(number))
        except OSError:
            return self._preprocessing.read(file)  # raises the error to show
        if not found:
            image = self._preprocessing.read(file)
            pixels = image.movedim(0, -1).contiguous().numpy().tobytes()
            entry = Entry(stamp, digest, checksum(pixels))
            try:
                self._write(number, entry, pixels)
            except OSError as error:
                self.failure = error
                return image
        self._entries[path] = entry
        return None

    def get(self, path: str) -> Tensor | None:
        """Return an image after `hold`: (3, resize, resize), uint8, channels last in memory.

        None if `hold` did not put it there, if another run has replaced it because its file has changed, or if another
        program has cut the cache's file.
        """
        entry = self._entries.get(path)
        if entry is None or os.fstat(self._descriptor).st_size != self._size:
            return None
        number, side = self._numbers[path], self._preprocessing.resize
        pixels = bytearray(self._bytes(number))
        there = self._entry(number)  # after the bytes were copied: a writer clears the entry first
        if len(pixels) < self._slot or (there.stamp, there.checksum) != (entry.stamp, entry.checksum):
            return None
        return torch.frombuffer(pixels, dtype=torch.uint8).view(side, side, 3).movedim(-1, 0)

    def _attach(self, descriptor: int) -> None:
        """Take an open file, and lock it so that it is not removed while this object lives."""
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a worker process that is not forked must open itself."""
        return {name: value for name, value in vars(self).items() if name != "_descriptor"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        try:
            self._attach(os.open(self._path, os.O_RDONLY))
        except OSError:  # the file is gone: images are decoded
            self._entries = {}

    def _place(self, number: int) -> int:
        """Return where the entry of an image is."""
        return _PAGE + number * SIZE

    def _entry(self, number: int) -> Entry:
        return Entry.unpack(self._read(SIZE, self._place(number)).ljust(SIZE, bytes(1)))

    def _bytes(self, number: int) -> bytes:
        return self._read(self._slot, self._slots + number * self._slot)

    def _read(self, count: int, place: int) -> bytes:
        """Read bytes; fewer than asked for if the file ends before, none if it cannot be read."""
        try:
            return os.pread(self._descriptor, count, place)
        except OSError:
            return b""

    def _write(self, number: int, entry: Entry, pixels: bytes) -> None:
        """Fill a slot."""
        place = self._place(number)
        write_all(self._descriptor, bytes(SIZE), place)
        write_all(self._descriptor, pixels, self._slots + number * self._slot)
        write_all(self._descriptor, entry.pack(), place)


def _open(path: Path, header: bytes, size: int) -> int:
    """Open a cache's file, or make it if there is none or another one. The caller holds the directory's lock."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR)
        if os.fstat(descriptor).st_size == size and os.pread(descriptor, len(header), 0) == header:
            os.utime(descriptor)  # time of the last use
            return descriptor
        os.close(descriptor)
        path.unlink()  # never truncated: another process may read it
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, size)
        write_all(descriptor, header, 0)
    except OSError:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def _make_room(path: Path, size: int) -> None:
    """Remove the least recently used caches until one of `size` bytes fits. The caller holds the directory's lock.

    Raises:
        NoCacheError: The new cache cannot fit.
    """
    used = {file: file.stat().st_blocks * 512 for file in path.parent.glob("*.images")}
    free = shutil.disk_usage(path.parent).free + sum(used.values())
    limit = min(cache_limit(), free / 2)
    used.pop(path, None)
    busy = {file: file.stat().st_size for file in used if _in_use(file)}  # may grow to their full size
    if size + sum(busy.values()) > limit:
        raise NoCacheError(
            f"{size / 1e9:.1f} GB of images exceed the {limit / 1e9:.1f} GB that may be cached on disk "
            "(STOCHNORM_CACHE_GB, at most half of the free space)"
        )
    total = size + sum((used | busy).values())
    for file in sorted(used.keys() - busy.keys(), key=lambda file: file.stat().st_mtime):
        if total <= limit:
            break
        file.unlink()
        total -= used[file]


def _in_use(file: Path) -> bool:
    """Return whether a process has a cache open."""
    descriptor = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
