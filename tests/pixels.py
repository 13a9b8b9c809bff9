"""Pixels to write into files, and those that files give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from stochnorm.data.images.decoding.decode import decode

SMOOTH = np.stack(np.meshgrid(np.arange(0, 240, 10), np.arange(0, 160, 10)), -1).astype(np.uint8)
COLOUR = np.concatenate([SMOOTH, np.full((16, 24, 1), 100, dtype=np.uint8)], 2)
"""Smooth colours, 16 x 24, which JPEG changes little."""


def writes(suffix: str) -> bool:
    """Return whether this build of Pillow writes files with an extension."""
    Image.init()
    return Image.registered_extensions().get(suffix) in Image.SAVE


def pixels(path: Path) -> np.ndarray:
    """Return the pixels that stochnorm reads from a file."""
    image, needed = decode(path)
    assert image.mode == "RGB"
    assert image.size == needed
    return np.asarray(image).astype(int)
