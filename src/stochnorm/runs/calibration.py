"""Calibration: are predictions of a probability right as often as it says?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Bin", "calibration_bins", "calibration_error"]

_BINS = 15
_DECIMALS = 6  # of the files of predictions


class Bin(NamedTuple):
    """Predictions of similar probability."""

    confidence: float
    """Mean probability."""
    frequency: float
    """Fraction of them that are right."""
    size: int
    """Number of predictions."""


def calibration_bins(confidence: ArrayLike, right: ArrayLike) -> list[Bin]:
    """Compare probability and accuracy in 15 bins of equal width; only bins that have predictions.

    A bin begins with its lower edge; the last one also has probability 1, as in `numpy.histogram`. Probabilities are
    rounded to 6 decimals, so that predictions and a file of them give the same bins.

    Args:
        confidence: (n,), probabilities in [0, 1].
        right: (n,), whether each prediction is right.

    Example:
        >>> calibration_bins([1.0, 0.95, 0.5], [True, False, True])
        [Bin(confidence=0.5, frequency=1.0, size=1), Bin(confidence=0.975, frequency=0.5, size=2)]
    """
    rounded, hits = np.round(np.asarray(confidence, np.float64), _DECIMALS), np.asarray(right, np.float64)
    place = np.minimum((rounded * _BINS).astype(int), _BINS - 1)
    sizes, of_confidence, of_hits = (np.bincount(place, weights, _BINS) for weights in (None, rounded, hits))
    return [Bin(float(c / n), float(h / n), int(n)) for n, c, h in zip(sizes, of_confidence, of_hits, strict=True) if n]


def calibration_error(bins: list[Bin]) -> float:
    """Return the expected calibration error, a fraction: the mean distance between probability and accuracy.

    Example:
        >>> round(calibration_error(calibration_bins([1.0, 0.95, 0.5], [True, False, True])), 4)
        0.4833
    """
    return sum(b.size * abs(b.confidence - b.frequency) for b in bins) / sum(b.size for b in bins)
