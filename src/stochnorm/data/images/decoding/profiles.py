"""Colour profiles: the colours of an image as sRGB."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

__all__ = ["to_srgb"]

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_SAME = 2  # largest difference, of 255, between profiles that are the same but for rounding


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image to sRGB by its ICC profile, with its perceptual intent.

    A profile that is damaged, or of other colours than the image's (RGB in a grey image), is ignored. If it is sRGB but
    for rounding, whatever it is called, no pixel changes.

    Args:
        image: Image in mode L, RGB, CMYK or LAB. LAB needs no profile.
        profile: Its ICC profile, if it has one.

    Returns:
        The image in mode RGB.
    """
    transform = _transform(profile or b"", image.mode) if profile or image.mode == "LAB" else None
    if transform is None:
        return image.convert("RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is None if the image is changed in place
    return converted


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion from a profile to sRGB; None if there is none, or nothing to convert."""
    try:
        if mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if source.profile.xcolor_space.strip() != _SPACES[mode]:
                return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if _changes_nothing(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a conversion leaves colours as they are, but for rounding."""
    if mode not in ("L", "RGB"):
        return False
    levels = np.arange(0, 256, 1 if mode == "L" else 17, dtype=np.uint8)
    grid = levels[None] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    colours = Image.fromarray(grid)
    converted = ImageCms.applyTransform(colours, transform)
    before, after = (np.asarray(image, dtype=int) for image in (colours.convert("RGB"), converted))
    return bool(np.abs(before - after).max() <= _SAME)
