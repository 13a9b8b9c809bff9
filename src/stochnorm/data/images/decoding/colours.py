"""From the pixels of any mode to RGB: colours as sRGB, transparent parts on white, 8 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops

from stochnorm.data.images.decoding.profiles import to_srgb
from stochnorm.data.images.decoding.transparency import opacity

__all__ = ["to_rgb"]

_BITS = 258  # tag of TIFF
_WHITE_IS_ZERO = 262, 0  # tag and value in TIFF


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image to RGB.

    Args:
        image: Image as Pillow has loaded it, in any mode.

    Returns:
        The image in mode RGB, of the same size.

    Raises:
        ValueError: The values of a float image or of one with 32-bit integers are outside of their scale, or not
            finite.
    """
    mask = opacity(image)
    colour = to_srgb(_opaque(image), image.info.get("icc_profile"))
    if mask is None:
        return colour
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(colour, mask=mask)
    return white


def _opaque(image: Image.Image) -> Image.Image:
    """Return the colours of an image: grey (L), RGB, CMYK or LAB, 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _eight_bits(image)
    if image.mode in ("1", "L", "LA", "La"):
        return (image.convert("LA") if image.mode == "La" else image).convert("L")
    if image.mode == "CMYK":
        stored_as_is = image.format in ("JPEG", "MPO") and "adobe" not in image.info
        return ImageChops.invert(image) if stored_as_is else image  # Pillow inverts all of JPEG, as Adobe does
    if image.mode in ("RGB", "LAB"):
        return image
    return image.convert("RGBA").convert("RGB") if image.has_transparency_data else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale wide grey values to 8 bits: integers from 0 to 65,535 (TIFF files of 12 bits: 4,095), floats 0 to 1."""
    values = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})
    top, kind = (1.0, "floats") if image.mode == "F" else (65535.0, "32-bit integers")
    if tags.get(_BITS) == (12,):  # packed, three bytes for two pixels
        top = 4095.0
    if not np.isfinite(values).all():
        raise ValueError("its values are not all finite")
    low, high = values.min(), values.max()
    if low < -1e-3 * top or high > (1 + 1e-3) * top:
        raise ValueError(
            f"its values go from {low:g} to {high:g}, and {kind} are read on the scale from 0 to {top:g}; scale all "
            "images of the set alike"
        )
    tag, value = _WHITE_IS_ZERO
    if tags.get(tag) == value:
        values = top - values
    return Image.fromarray((values * 255 / top).round().clip(0, 255).astype(np.uint8))
