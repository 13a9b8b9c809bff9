"""Pairs of images that are nearly the same: by a perceptual hash, then by their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stochnorm.data.inspection.look import BITS, SIDE, Print

__all__ = ["DISTANCE", "LIKENESS", "Pair", "similar_pairs"]

DISTANCE = 25
"""Bits, of BITS, in which the hashes of two images that are nearly the same may differ."""

LIKENESS = 0.97
"""Smallest correlation of two small images that are nearly the same, after what all images share is subtracted."""

_GREY = 2.0  # mean Cb and Cr, of 128, of an image without colour, whose copy may have colours
_TINT = 16.0  # largest difference of mean Cb or Cr of two images that are nearly the same
_ENOUGH = 50  # images whose mean is what they share; of fewer it would be the images themselves
_BLOCK = 512  # images that are compared with all others at a time
_MOST = 200  # pairs of an image that are looked at, the nearest


class Pair(NamedTuple):
    """Two images that are nearly the same."""

    first: int
    second: int
    distance: int
    """Bits in which their hashes differ."""
    mirrored: bool
    """Whether the second is like the mirror image of the first."""


def similar_pairs(prints: Sequence[Print]) -> list[Pair]:
    """Return the pairs of images that are nearly the same, the nearest first.

    They are so after JPEG of any quality, another size, brightness or contrast, without colours, mirrored, and after a
    crop of about 1 % a side; not after rotation or a larger crop, and not in other colours. Hashes are compared by
    matrix products, 10,000 images in seconds. Photographs of one kind, such as radiographs, share most of what a hash
    is made of; so candidates are compared by what is left of their pixels when the mean of all images is subtracted.

    Args:
        prints: What the images are compared by; a pair names its images by their places here.
    """
    if len(prints) < 2:
        return []
    bits = np.stack([print.bits for print in prints]).astype(np.float32)
    small = np.stack([print.small for print in prints]).astype(np.float32)
    plain = _normal(small)
    shared = plain.mean(0) if len(prints) >= _ENOUGH else np.zeros(SIDE * SIDE, np.float32)
    found: dict[tuple[int, int], Pair] = {}
    for mirrored in (False, True):
        others = bits * _odd_columns() if mirrored else bits
        for first, second, distance in _near(bits, others):
            one = _normal(plain[[first]] - shared)
            other = plain[[second]].reshape(1, SIDE, SIDE)[:, :, :: -1 if mirrored else 1].reshape(1, -1)
            like = float((one * _normal(other - shared)).sum()) >= LIKENESS
            if like and (first, second) not in found and _same_tint(prints[first], prints[second]):
                found[first, second] = Pair(first, second, distance, mirrored)
    return sorted(found.values(), key=lambda pair: (pair.distance, pair.first, pair.second))


def _same_tint(first: Print, second: Print) -> bool:
    """Return whether two images have about the same colours (catalogues show a thing in many), or one has none."""
    coloured = all(float(np.abs(print.tint).max()) > _GREY for print in (first, second))
    return not coloured or float(np.abs(first.tint - second.tint).max()) <= _TINT


def _near(bits: NDArray[np.float32], others: NDArray[np.float32]) -> list[tuple[int, int, int]]:
    """Return places i < j and distances of the hashes that differ in few bits."""
    found = []
    for start in range(0, len(bits), _BLOCK):
        distances = (BITS - bits[start : start + _BLOCK] @ others[start:].T) / 2
        for row in np.flatnonzero((distances <= DISTANCE).any(1)):
            of = distances[row, row + 1 :]
            near = np.flatnonzero(of <= DISTANCE)
            near = near[np.argsort(of[near], kind="stable")[:_MOST]]
            found += [(start + int(row), start + int(row) + 1 + int(j), int(of[j])) for j in near]
    return found


def _odd_columns() -> NDArray[np.float32]:
    """Return the factors that make the hash of an image that of its mirror image."""
    side = round((BITS + 1) ** 0.5)
    return np.tile(np.where(np.arange(side) % 2, -1, 1), side)[1:].astype(np.float32)


def _normal(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return images as rows of mean 0 and length 1."""
    rows = images.reshape(len(images), -1)
    rows = rows - rows.mean(1, keepdims=True)
    normal: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return normal
