"""The entry of an image in a cache: what its slot was made of, and whether that still holds."""

from __future__ import annotations

import hashlib
import struct
import time
import zlib
from pathlib import Path
from typing import NamedTuple

from stochnorm.files import FileStamp

__all__ = ["SIZE", "Entry", "checksum", "digest_of"]

_FORM = struct.Struct("<4q16s8s")
SIZE = _FORM.size
"""Bytes of an entry."""

_TICK = 2e9  # nanoseconds: no file system's clock is coarser
_NONE = bytes(16)


class Entry(NamedTuple):
    """What a slot was made of; an entry of zeros fits no file."""

    stamp: FileStamp
    """The image's file, before it was read."""
    digest: bytes
    """Of its content, see [stochnorm.data.images.cache_entry.digest_of][]."""
    checksum: bytes
    """Of the slot."""

    @classmethod
    def unpack(cls, data: bytes) -> Entry:
        """Read an entry."""
        *stamp, digest, pixels = _FORM.unpack(data)
        return cls(FileStamp(*stamp), digest, pixels)

    def pack(self) -> bytes:
        """Write the entry."""
        return _FORM.pack(*self.stamp, self.digest, self.checksum)

    def is_of(self, file: Path, stamp: FileStamp, digest: bytes) -> bool:
        """Return whether the slot was made of a file as it is now, with this stamp and digest.

        Raises:
            OSError: The file has to be read, and cannot.
        """
        if self.stamp != stamp:
            return False
        if self.digest != _NONE and digest == _NONE:
            digest = _digest(file)
        return self.digest == digest


def digest_of(file: Path, stamp: FileStamp) -> bytes:
    """Return a digest of a file's content if its stamp may not tell the next change; else zeros.

    That is so if the file was changed within the last tick of the clock, since another change in this tick leaves the
    stamp as it is; if the file system does not note the time of a change; and if the clock was set back.
    """
    return _NONE if 0 < stamp.changed < time.time_ns() - _TICK else _digest(file)


def checksum(pixels: bytes) -> bytes:
    """Return the checksum of a slot, 8 bytes."""
    return zlib.crc32(pixels).to_bytes(8, "little")


def _digest(file: Path) -> bytes:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).digest()
