"""A list of images, each decoded once: broken files are found before training starts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from stochnorm.data.images.cache import ImageCache, NoCacheError
from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.data.images.readable import THREADS, Track, readable
from stochnorm.data.manifest import Row
from stochnorm.files import FileStamp

__all__ = ["ImageStore"]


class ImageStore:
    """The uint8 images of a list of rows, resized to a square; unreadable ones are left out.

    Args:
        root: Folder that the rows' paths are relative to.
        rows: The images.
        preprocessing: Size of the images.
        strict: Raise at the first unreadable image instead of warning.
        max_bytes: Maximum size of the images to keep in memory, in bytes.
        track: Progress display.
        cache: Place for decoded images. `disk`: a file that all runs share, see
            [stochnorm.data.images.cache.ImageCache][]; if it cannot be made, warn and do as `memory`. `memory`: in
            memory; if they do not fit, as `none`. `none`: decode at each use. `auto`: as `disk`, without a warning if
            the file would be too large.
        listed: Paths of all images of the source, which the file on disk has room for; None: those of `rows`.

    Attributes:
        rows: The readable images.
        stamps: Stamp of each image's file, from before it was read; None if it has none.

    Raises:
        ValueError: No image can be read; or, with `strict`, one cannot.
        OSError: The system cannot read an image's file: that is no damaged image.

    Warns:
        UserWarning: Images were left out; or all of them have the same pixels.
    """

    def __init__(
        self,
        root: Path,
        rows: Sequence[Row],
        preprocessing: Preprocessing,
        *,
        strict: bool = False,
        max_bytes: float = 4e9,
        track: Track | None = None,
        cache: Literal["auto", "disk", "memory", "none"] = "memory",
        listed: Sequence[str] | None = None,
    ) -> None:
        self.root = root
        self.preprocessing = preprocessing
        self.rows: list[Row] = []
        self.stamps: list[FileStamp | None] = []
        self._cache: ImageCache | None = None
        if cache in ("auto", "disk"):
            self._cache = self._open(listed or [row.path for row in rows], warn_of_limit=cache == "disk")
        shape = (len(rows), preprocessing.resize, preprocessing.resize, 3)
        fits = cache != "none" and torch.Size(shape).numel() <= max_bytes
        self._memory: Tensor | None = None
        self._in_memory: set[int] = set()
        first: Tensor | None = None
        alike = True
        for row, (stamp, image) in readable(self._obtain, rows, ahead=4 * THREADS, strict=strict, track=track):
            if image is not None and fits:
                if self._memory is None:
                    self._memory = torch.empty(shape, dtype=torch.uint8)  # takes up memory as it is filled
                self._memory[len(self.rows)] = image.movedim(0, -1)
                self._in_memory.add(len(self.rows))
            self.rows.append(row)
            self.stamps.append(stamp)
            if alike:
                pixels = self[len(self) - 1] if image is None else image
                first = pixels if first is None else first
                alike = torch.equal(first, pixels)
        if alike and len(self) > 1:
            warnings.warn(f"all {len(self)} images have the same pixels: nothing tells their classes", stacklevel=2)
        if self._cache is not None and self._cache.failure is not None:
            _warn_of(self._cache.failure)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        """Return the image at an index of `rows`: (3, resize, resize), uint8, channels last in memory."""
        if self._memory is not None and index in self._in_memory:
            return self._memory[index].movedim(-1, 0)
        path = self.rows[index].path
        image = None if self._cache is None else self._cache.get(path)
        return self.preprocessing.read(self.root / path) if image is None else image

    def contents(self, indices: Sequence[int]) -> Tensor:
        """Return height and width of images inside their borders, (n, 2), int64."""
        return torch.tensor([self.preprocessing.content(self.root / self.rows[index].path) for index in indices])

    def _open(self, listed: Sequence[str], *, warn_of_limit: bool) -> ImageCache | None:
        """Open the file on disk; if that fails, warn and return None."""
        try:
            return ImageCache(self.root, listed, self.preprocessing)
        except (OSError, RuntimeError) as error:  # RuntimeError: no home directory, no locks on the file system
            if warn_of_limit or not isinstance(error, NoCacheError):
                _warn_of(error)
            return None

    def _obtain(self, row: Row) -> tuple[FileStamp | None, Tensor | None]:
        """Read an image, and stamp it; None in place of the image if the file on disk has it."""
        path = self.root / row.path
        try:
            stamp = FileStamp.of(path)
        except OSError:
            stamp = None  # reading it raises the error to show
        return stamp, self.preprocessing.read(path) if self._cache is None else self._cache.hold(row.path)


def _warn_of(error: Exception) -> None:
    warnings.warn(
        f"images are not kept on disk for the next run: {error}; set XDG_CACHE_HOME to a writable directory, or use "
        "--cache memory",
        stacklevel=4,
    )
