"""Ways to make an image a square: distorted, its middle, or all of it with a border."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

__all__ = ["bordered", "content", "middle"]


def content(width: int, height: int, side: int) -> tuple[int, int]:
    """Return width and height of an image that is scaled, with its aspect, into a square of a side.

    Example:
        >>> content(4000, 3000, side=340), content(10, 3000, side=340)
        ((340, 255), (1, 340))
    """
    longest = max(width, height)
    return max(round(side * width / longest), 1), max(round(side * height / longest), 1)


def middle(image: Image.Image, side: int, resampling: Image.Resampling) -> Image.Image:
    """Scale the middle square of an image to a side."""
    shortest = min(image.size)
    left, top = ((length - shortest) / 2 for length in image.size)
    return image.resize((side, side), resampling, (left, top, left + shortest, top + shortest))


def bordered(
    image: Image.Image, size: tuple[int, int], side: int, resampling: Image.Resampling, mean: Sequence[float]
) -> Image.Image:
    """Scale an image to a size, and put it into the middle of a square of the mean colour."""
    red, green, blue = (round(255 * value) for value in mean)
    square = Image.new("RGB", (side, side), (red, green, blue))
    square.paste(image.resize(size, resampling), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square
