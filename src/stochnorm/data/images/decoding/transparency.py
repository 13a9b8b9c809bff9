"""Transparency of images: by a channel, by a palette, or by one colour."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["opacity", "scale_transparent_colour"]

_PNG_SCALES = {"L;2": 85, "L;4": 17}  # what Pillow multiplies grey of few bits with, but not the transparent one


def scale_transparent_colour(file: Image.Image) -> None:
    """Give the transparent colour of a PNG file that is not decoded yet the scale that its pixels will have."""
    value = file.info.get("transparency")
    if file.format != "PNG" or not file.tile or value is None:  # type: ignore[attr-defined]
        return
    raw = file.tile[0][3]  # type: ignore[attr-defined]
    if raw in _PNG_SCALES and isinstance(value, int):
        file.info["transparency"] = min(value * _PNG_SCALES[raw], 255)
    elif raw == "RGB;16B" and isinstance(value, tuple):
        file.info["transparency"] = tuple(part >> 8 for part in value)


def opacity(image: Image.Image) -> Image.Image | None:
    """Return how opaque each pixel of a decoded image is, in mode L; None if all of them are."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        value = image.info.get("transparency")
        if not isinstance(value, int):
            return None
        return Image.fromarray(np.where(np.asarray(image) == value, 0, 255).astype(np.uint8))
    if image.mode == "La":  # grey that is multiplied by its alpha, which Pillow converts to nothing else
        image = image.convert("LA")
    return image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
