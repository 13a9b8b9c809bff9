"""The pixels of an image file: one function for training, evaluation, prediction and pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from stochnorm.data.images.decoding.colours import to_rgb
from stochnorm.data.images.decoding.opening import opened
from stochnorm.data.images.decoding.orientation import orientation, oriented_size, upright
from stochnorm.data.images.decoding.transparency import scale_transparent_colour

__all__ = ["decode", "pixels", "size_of"]

Size = tuple[int, int]


def decode(path: Path, enough: Callable[[int, int], Size] = lambda *size: size) -> tuple[Image.Image, Size]:
    """Decode an image file, the first image of several, to RGB: upright, sRGB, transparent parts on white.

    Args:
        path: The file.
        enough: Function from width and height of the image to those that are needed. A JPEG file is decoded at a half,
            a quarter or an eighth of its size, if that is still enough. By default the size is that of the file.

    Returns:
        The image in mode RGB, and the width and height that are needed.

    Raises:
        DamagedImageError: The file cannot be read as an image; the message names it.
        OSError: The system cannot read the file.
    """
    with opened(path) as file:
        return pixels(file, enough)


def pixels(file: Image.Image, enough: Callable[[int, int], Size]) -> tuple[Image.Image, Size]:
    """Decode an image that is open, as [stochnorm.data.images.decoding.decode.decode][] does."""
    scale_transparent_colour(file)
    width, height = needed = enough(*oriented_size(file))
    number = orientation(file)
    file.draft("RGB", (height, width) if number > 4 else needed)
    file.load()
    return upright(to_rgb(file), number), needed


def size_of(path: Path) -> Size:
    """Return width and height of an image, upright, from the head of its file.

    Raises:
        DamagedImageError: The file cannot be read as an image.
        OSError: The system cannot read the file.
    """
    with opened(path, head=True) as file:
        return oriented_size(file)
