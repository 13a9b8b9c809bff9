"""Images at hand: each file is decoded once, which also finds the broken ones before training starts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from stochnorm.data.images.ahead import map_ahead
from stochnorm.data.images.cache import ImageCache, NoCacheError
from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.data.manifest import Row
from stochnorm.text import some

__all__ = ["ImageStore"]

_Obtained = Tensor | ValueError | None  # None: the cache on disk has the image


class Track(Protocol):
    """Shows progress while it yields what it is given; ``rich.progress.track`` and its like."""

    def __call__(self, items: Iterable[_Obtained], *, description: str, total: int) -> Iterable[_Obtained]: ...


class ImageStore:
    """The squashed uint8 images of a list of rows, without those that cannot be read.

    Args:
        root: Folder that the rows' paths are relative to.
        rows: The images.
        preprocessing: Says the size.
        strict: Raise at the first image that cannot be read, in place of a warning.
        max_bytes: Above this many bytes, images are not kept in memory.
        track: Progress display.
        cache: Where decoded images are kept. ``disk``: in a file that all runs share, see
            :class:`~stochnorm.data.images.cache.ImageCache`, or with a warning as ``memory`` does. ``memory``: there,
            or where they do not fit as ``none`` does. ``none``: checked now, decoded again at each use. ``auto``:
            ``disk``, but without a warning where the file would be too large.
        listed: Paths of all images of the source, for which the file on disk has room; None: those of ``rows``.

    Attributes:
        rows: The readable images.

    Raises:
        ValueError: With ``strict``, an image cannot be read; without, none can.
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
        self._cache: ImageCache | None = None
        if cache in ("auto", "disk"):
            self._cache = self._open(listed or [row.path for row in rows], quiet=cache == "auto")
        shape = (len(rows), preprocessing.resize, preprocessing.resize, 3)
        fits = cache != "none" and torch.Size(shape).numel() <= max_bytes
        self._memory: Tensor | None = None
        self._in_memory: set[int] = set()
        broken: list[str] = []
        threads = os.cpu_count() or 1
        with closing(map_ahead(self._obtain, rows, threads=threads, ahead=4 * threads)) as images:
            obtained: Iterable[_Obtained] = images
            if track is not None:
                obtained = track(obtained, description="Reading images", total=len(rows))
            for row, image in zip(rows, obtained, strict=True):
                if isinstance(image, ValueError):
                    if strict:
                        raise image
                    broken.append(str(image))
                    continue
                if image is not None and fits:
                    if self._memory is None:
                        self._memory = torch.empty(shape, dtype=torch.uint8)  # one block, which takes up what is used
                    self._memory[len(self.rows)] = image.movedim(0, -1)
                    self._in_memory.add(len(self.rows))
                self.rows.append(row)
        if rows and not self.rows:
            raise ValueError(f"none of {len(rows)} images can be read: {broken[0]}")
        if broken:
            warnings.warn(f"left out {len(broken)} of {len(rows)} images: {some(broken)}", stacklevel=2)
        if self._cache is not None and self._cache.failure is not None:
            _warn_of(self._cache.failure)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        """The image at an index of ``rows``: (3, resize, resize), uint8, in memory channels last."""
        if self._memory is not None and index in self._in_memory:
            return self._memory[index].movedim(-1, 0)
        path = self.rows[index].path
        image = None if self._cache is None else self._cache.get(path)
        return self.preprocessing.read(self.root / path) if image is None else image

    def _open(self, listed: Sequence[str], *, quiet: bool) -> ImageCache | None:
        """The file on disk; None where it cannot be, with a warning unless it is by rule and ``quiet``."""
        try:
            return ImageCache(self.root, listed, self.preprocessing)
        except (OSError, RuntimeError) as error:  # RuntimeError: no home directory, no locks on the file system
            if not (quiet and isinstance(error, NoCacheError)):
                _warn_of(error)
            return None

    def _obtain(self, row: Row) -> _Obtained:
        try:
            return self.preprocessing.read(self.root / row.path) if self._cache is None else self._cache.hold(row.path)
        except ValueError as error:
            return error


def _warn_of(error: Exception) -> None:
    warnings.warn(
        f"images are not kept on disk for the next run: {error}; set XDG_CACHE_HOME to a directory that can be "
        "written, or give --cache memory",
        stacklevel=4,
    )
