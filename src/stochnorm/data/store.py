"""Images in memory: each file is decoded once, which also finds the broken ones before training starts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from stochnorm.data.manifest import Row, some
from stochnorm.data.preprocessing import Preprocessing

__all__ = ["ImageStore"]


class Track(Protocol):
    """Shows progress while it yields what it is given; ``rich.progress.track`` and its like."""

    def __call__(
        self, items: Iterable[Tensor | ValueError], *, description: str, total: int
    ) -> Iterable[Tensor | ValueError]: ...


class ImageStore:
    """The squashed uint8 images of a list of rows, without those that cannot be read.

    Args:
        root: Folder that the rows' paths are relative to.
        rows: The images.
        preprocessing: Says the size.
        strict: Raise at the first image that cannot be read, in place of a warning.
        max_bytes: Above this many bytes, images are checked now and decoded again at each use.
        track: Progress display.

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
    ) -> None:
        self.root = root
        self.preprocessing = preprocessing
        shape = (len(rows), 3, preprocessing.resize, preprocessing.resize)
        keep = torch.Size(shape).numel() <= max_bytes
        images = torch.empty(shape if keep else (0,), dtype=torch.uint8)
        self.rows: list[Row] = []
        broken: list[str] = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoded: Iterable[Tensor | ValueError] = pool.map(self._try_read, rows)
            if track is not None:
                decoded = track(decoded, description="Reading images", total=len(rows))
            for row, image in zip(rows, decoded, strict=True):
                if isinstance(image, ValueError):
                    if strict:
                        pool.shutdown(wait=False, cancel_futures=True)
                        raise image
                    broken.append(str(image))
                    continue
                if keep:
                    images[len(self.rows)] = image
                self.rows.append(row)
        if rows and not self.rows:
            raise ValueError(f"none of {len(rows)} images can be read: {broken[0]}")
        if broken:
            warnings.warn(f"left out {len(broken)} of {len(rows)} images: {some(broken)}", stacklevel=2)
        self._images = images[: len(self.rows)] if keep else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        """The image at an index of ``rows``: (3, resize, resize), uint8."""
        if self._images is not None:
            return self._images[index]
        return self.preprocessing.read(self.root / self.rows[index].path)

    def _try_read(self, row: Row) -> Tensor | ValueError:
        try:
            return self.preprocessing.read(self.root / row.path)
        except ValueError as error:
            return error
