"""Tests of paired values: Student's t, permutation of signs, and Holm's correction for several of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import permutation_test, ttest_rel

__all__ = ["LEVEL", "holm", "paired_tests"]

LEVEL = 0.05
"""Level of significance after Holm's correction; intervals cover 1 - LEVEL."""

_RESAMPLES = 9999  # of a permutation test that would need more
_DECIMALS = 9  # of a percent; scores are shares of images, so smaller differences are rounding errors


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number: the k-th smallest of n, times n - k + 1.

    A corrected p-value is never below that of a smaller one, and never above 1. The function of statsmodels collects
    garbage at each call, which for 10,000 runs took minutes.
    """
    order = np.argsort(p_values)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(np.sort(p_values) * np.arange(len(order), 0, -1))
    return np.minimum(corrected, 1.0).tolist()  # type: ignore[no-any-return]


@lru_cache(maxsize=100_000)  # a page and its tables repeat the same tests
def paired_tests(
    pairs: tuple[tuple[float, float], ...],
) -> tuple[tuple[float, float] | None, float | None, float | None]:
    """Return interval and p-value of Student's t-test, and the p-value of the permutation test."""
    if len(pairs) < 2:
        return None, None, None
    gaps = np.subtract(*np.transpose(pairs))
    permuted = permutation_test(
        (gaps,),
        _rounded_mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        random_state=0,
    )
    if round(float(np.ptp(gaps)), _DECIMALS) == 0:  # no variance, so t is not defined
        return None, None, float(permuted.pvalue)
    test = ttest_rel(*zip(*pairs, strict=True))
    low, high = test.confidence_interval(1 - LEVEL)
    return (float(low), float(high)), float(test.pvalue), float(permuted.pvalue)


def _rounded_mean(gaps: Any, axis: int) -> Any:
    """Return a rounded mean, so that permutations as extreme as the observed one count as such."""
    return np.round(np.mean(gaps, axis=axis), _DECIMALS)
