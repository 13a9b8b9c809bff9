"""Images as Python has them: files, PIL images, arrays and tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from stochnorm.data.images.decoding.colours import to_rgb
from stochnorm.data.images.decoding.orientation import orientation, upright
from stochnorm.data.images.preprocessing import Preprocessing

__all__ = ["Picture", "is_picture", "path_of", "square"]

Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor"
"""A file; a PIL image; pixels uint8: an array (h, w), (h, w, 3) or (h, w, 4), or a tensor (1, 3 or 4, h, w)."""


def is_picture(value: object) -> bool:
    """Return whether a value is one image, and not several; a path may be that of a folder."""
    if isinstance(value, np.ndarray):
        return value.ndim < 4
    if isinstance(value, Tensor):
        return value.ndim < 4
    return isinstance(value, (str, os.PathLike, Image.Image))


def path_of(picture: Picture) -> Path | None:
    """Return the file of an image; None if it has none."""
    if isinstance(picture, (str, os.PathLike)):
        return Path(picture)
    name = getattr(picture, "filename", "")  # of a PIL image that was opened
    return Path(name) if name else None


def square(picture: Picture, preprocessing: Preprocessing) -> Tensor:
    """Return the pixels of an image as evaluation reads them: (3, resize, resize), uint8, RGB.

    Raises:
        DamagedImageError: A file cannot be read as an image.
        ValueError: Pixels have another shape or dtype.
        TypeError: It is no image.
        OSError: The system cannot read a file.
    """
    if isinstance(picture, (str, os.PathLike)):
        return preprocessing.read(Path(picture))
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu().movedim(0, -1).numpy() if picture.ndim == 3 else picture.cpu().numpy()
    if isinstance(picture, np.ndarray):
        picture = _from_pixels(picture)
    if not isinstance(picture, Image.Image):
        raise TypeError(f"an image must be a path, a PIL image, an array or a tensor, got {type(picture).__name__}")
    number = orientation(picture)
    return preprocessing.convert(upright(to_rgb(picture), number))


def _from_pixels(pixels: np.ndarray[Any, Any]) -> Image.Image:
    """Make an image of an array (h, w[, 1, 3 or 4])."""
    shape = pixels.shape
    if pixels.ndim == 3 and shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and shape[-1] in (3, 4))) or 0 in shape:
        raise ValueError(
            f"the pixels of an image must be uint8 of shape (h, w), (h, w, 3) or (h, w, 4), got {pixels.dtype} "
            f"{shape}; scale them to 0 to 255 and convert them"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))
