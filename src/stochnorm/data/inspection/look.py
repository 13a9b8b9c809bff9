"""One look at one image: all that its inspection keeps of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image

from stochnorm.data.images.decoding.decode import pixels
from stochnorm.data.images.decoding.opening import DamagedImageError, opened
from stochnorm.data.images.decoding.orientation import oriented_size
from stochnorm.data.images.decoding.transparency import opacity

__all__ = ["BITS", "SIDE", "Look", "Print", "look_at", "print_of"]

BITS = 255
"""Number of bits of a perceptual hash."""

SIDE = 32
"""Side of the small image that two images are compared by, pixels."""

_FREQUENCIES = 16  # of each axis; without the mean, their number squared less one is BITS
_SCALE = 256  # pixels of the shorter side at which an image is looked at, about what a network sees
_FLAT = 2.0  # deviation of grey, of 255, below which an image has nothing to compare
_COARSE = 4  # pixels that the coarse edges average
_MAKE, _MODEL = 271, 272  # tags of EXIF


@dataclass(frozen=True)
class Print:
    """What an image is compared with others by."""

    bits: NDArray[np.int8]
    """(BITS,): the signs of its low frequencies, 1 or -1; all 0 of an image that is flat."""
    small: NDArray[np.uint8]
    """(SIDE, SIDE): the image, grey."""
    tint: NDArray[np.float32]
    """(2,): its mean colour, as Cb and Cr less 128; 0 if it is grey."""


@dataclass(frozen=True)
class Look:
    """What is kept of an image that can be read."""

    width: int
    """Pixels, upright."""
    height: int
    format: str
    """Format of the file, such as JPEG."""
    colours: str
    """grey or colour."""
    camera: str
    """Maker and model, from EXIF; empty if unknown."""
    opacity: float
    """Share of the image that its transparency leaves visible, in [0, 1]."""
    light: float
    """What the brightest channel of 99 % of the pixels does not exceed, of 255."""
    contrast: float
    """Standard deviation of grey, of 255."""
    sharpness: float
    """Steepness of the strongest edges from pixel to pixel, relative to that over four pixels."""
    print: Print


def look_at(path: Path) -> Look | str:
    """Look at an image file; return why it cannot be read if it cannot.

    Raises:
        OSError: The system cannot read the file.
    """
    try:
        with opened(path) as file:
            size, camera = oriented_size(file), _camera(file)
            image, _ = pixels(file, _enough)
            mask = opacity(file)
            visible = 1.0 if mask is None else float(np.asarray(mask).mean()) / 255
            kind = "grey" if file.mode in ("1", "L", "LA", "I", "F") or file.mode.startswith("I;") else "colour"
            small = _reduced(image)
            values = np.asarray(small.convert("L"), dtype=np.float32)
            return Look(
                *size,
                format=file.format or "",
                colours=kind,
                camera=camera,
                opacity=visible,
                light=float(np.percentile(np.asarray(small).max(-1), 99)),
                contrast=float(values.std()),
                sharpness=_sharpness(values),
                print=print_of(small),
            )
    except DamagedImageError as error:
        return str(error).removeprefix(f"{path}: ")


def print_of(image: Image.Image) -> Print:
    """Return what an image is compared with others by.

    The perceptual hash is that of Zauner (2010), "Implementation and benchmarking of perceptual image hash functions",
    section 3.2.1, with 16 x 16 frequencies instead of 8 x 8 and the sign in place of the comparison with the median, so
    that the hash of the mirror image is that of the image with every second column negative.
    """
    side = 2 * SIDE
    coloured = image.convert("YCbCr").resize((side, side), Image.Resampling.BOX)
    grey, blue, red = np.asarray(coloured, dtype=np.float32).transpose(2, 0, 1)
    low = scipy.fft.dctn(grey, norm="ortho")[:_FREQUENCIES, :_FREQUENCIES].ravel()[1:]
    signs = np.where(low > 0, 1, -1).astype(np.int8) if grey.std() >= _FLAT else np.zeros(BITS, np.int8)
    small = grey.reshape(SIDE, 2, SIDE, 2).mean((1, 3)).round().astype(np.uint8)
    return Print(signs, small, np.array([blue.mean() - 128, red.mean() - 128], dtype=np.float32))


def _enough(width: int, height: int) -> tuple[int, int]:
    """Return the size at which an image is looked at, at most its own."""
    share = min(_SCALE / max(min(width, height), 1), 1.0)
    return max(round(width * share), 1), max(round(height * share), 1)


def _reduced(image: Image.Image) -> Image.Image:
    wanted = _enough(*image.size)
    return image if wanted == image.size else image.resize(wanted, Image.Resampling.BOX)


def _sharpness(grey: NDArray[np.float32]) -> float:
    """Return how steep the strongest edges are; about 0.7 of a sharp photograph, 0.3 of a blurred one."""
    height, width = (side // _COARSE for side in grey.shape)
    if min(height, width) < _COARSE:
        return 1.0  # too small to tell
    blocks = grey[: height * _COARSE, : width * _COARSE].reshape(height, _COARSE, width, _COARSE)
    coarse = _steepest(blocks.mean((1, 3)))
    return _steepest(grey) / coarse if coarse >= 1 else 1.0


def _steepest(grey: NDArray[np.float32]) -> float:
    steps = np.concatenate([np.diff(grey, axis=axis).ravel() for axis in (0, 1)])
    return float(np.percentile(np.abs(steps), 99))


def _camera(file: Image.Image) -> str:
    try:
        tags = file.getexif()
    except Exception:  # damaged EXIF data make no damaged image, and Pillow raises errors of any kind for them
        return ""
    words = [str(tags.get(tag, "")).replace("\0", "").strip() for tag in (_MAKE, _MODEL)]
    return words[1] if words[1].startswith(words[0]) else " ".join(filter(None, words))
