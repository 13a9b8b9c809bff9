"""Test images, made small and embedded in the page."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

from torchvision.transforms import v2

from stochnorm.data import Preprocessing, read_source

__all__ = ["Album", "thumbnail"]

_SMALL = Preprocessing(image_size=112)


def thumbnail(path: Path) -> str:
    """Return the image that a network with 112 input pixels sees, as a JPEG data URI.

    Raises:
        ValueError: There is no such file, or it cannot be read as an image.
        OSError: The system cannot read the file.
    """
    data = io.BytesIO()
    pixels = _SMALL.center_crop(_SMALL.read(path))
    v2.functional.to_pil_image(pixels).save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


class Album:
    """The thumbnails of a page, each image once even if several runs show it."""

    def __init__(self) -> None:
        self.images: list[str] = []
        """Data URIs."""
        self._roots: dict[str, Path | None] = {}
        self._places: dict[Path, int | None] = {}

    def add(self, data: str, path: str) -> int | None:
        """Add an image of a data set and return its place in ``images``; None if it is missing or cannot be read.

        Args:
            data: Data set, as in the run's settings.
            path: Path of the image, relative to the data set's root.
        """
        root = self._root(data)
        if root is None:
            return None
        place = root / path
        if place not in self._places:
            try:
                image = thumbnail(place)
            except (OSError, ValueError):
                self._places[place] = None
            else:
                self._places[place] = len(self.images)
                self.images.append(image)
        return self._places[place]

    def _root(self, data: str) -> Path | None:
        if data not in self._roots:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # they were shown when the run was made
                    self._roots[data] = read_source(data).root
            except (OSError, ValueError, ImportError):  # moved, renamed or changed since the run
                self._roots[data] = None
        return self._roots[data]
