"""Answers that are withheld where the network is unsure: temperature, threshold, and what they promise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Selection", "risk_coverage", "select_by_coverage", "select_by_error", "temperature_of"]

CONFIDENCE = 0.9
"""How sure a promise about the error is."""


@dataclass(frozen=True)
class Selection:
    """A threshold of the probability, below which an answer is withheld."""

    temperature: float
    """Logits are divided by it before the softmax."""
    threshold: float
    """The least probability of the most probable class at which it is the answer, in [0, 1]."""
    coverage: float
    """Share of the validation images that are answered, in [0, 1]."""
    error: float
    """Share of these answers that are wrong, in [0, 1]; 0 if there are none."""
    bound: float
    """What the error on new images stays below, with a probability of `CONFIDENCE`, in [0, 1]."""
    images: int
    """Number of validation images."""


def temperature_of(logits: Tensor, targets: Tensor) -> float:
    """Return the temperature that makes probabilities fit images which the network was not trained on.

    Args:
        logits: (n, c).
        targets: (n,) class numbers.

    Returns:
        The minimum of the cross-entropy over temperatures from 0.05 to 20, by golden section on its logarithm: the loss
        has one minimum there (Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2).
    """
    logits = logits.double()

    def loss(log: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log), targets))

    low, high, ratio = math.log(0.05), math.log(20), (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


def risk_coverage(confidences: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of images that are answered, and of wrong answers among them, from the surest image on.

    Args:
        confidences: (n,).
        right: (n,) bool.

    Returns:
        Coverage and error, each (n,), float64.

    Example:
        >>> coverage, error = risk_coverage(torch.tensor([0.9, 0.5, 0.7]), torch.tensor([True, True, False]))
        >>> error.tolist()[:2]
        [0.0, 0.5]
    """
    wrong = (~right[confidences.argsort(descending=True, stable=True)]).double()
    answered = torch.arange(1, len(wrong) + 1, dtype=torch.double)
    return answered / len(wrong), wrong.cumsum(0) / answered


def select_by_coverage(logits: Tensor, targets: Tensor, coverage: float) -> Selection:
    """Choose the threshold at which a share of the images is answered.

    Args:
        logits: (n, c), of validation images.
        targets: (n,) class numbers.
        coverage: The share, in (0, 1].

    Raises:
        ValueError: A share outside (0, 1], or no image.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must be in (0, 1], got {coverage:g}")
    temperature, confidences, right = _sorted(logits, targets)
    return _selection(temperature, confidences, right, math.ceil(coverage * len(right)), tests=1)


def select_by_error(logits: Tensor, targets: Tensor, error: float) -> Selection:
    """Choose the lowest threshold whose answers promise an error.

    Selection with guaranteed risk (Geifman and El-Yaniv, NeurIPS 2017, algorithm 1): a binary search over the sorted
    probabilities, each of whose steps bounds the error by the binomial tail at its share of 1 - `CONFIDENCE`.

    Args:
        logits: (n, c), of validation images.
        targets: (n,) class numbers.
        error: The share of wrong answers, in (0, 1).

    Returns:
        The selection. If so few images can promise no such error, that of the lowest bound which they can.

    Raises:
        ValueError: An error outside (0, 1), or no image.
    """
    if not 0 < error < 1:
        raise ValueError(f"error must be in (0, 1), got {error:g}")
    temperature, confidences, right = _sorted(logits, targets)
    tests = max(math.ceil(math.log2(len(right))), 1)
    low, high, found = 1, len(right), []
    for _ in range(tests):
        answered = (low + high + 1) // 2
        found.append(_selection(temperature, confidences, right, answered, tests))
        if found[-1].bound <= error:
            low = answered
        else:
            high = max(answered - 1, low)
    kept = [each for each in found if each.bound <= error]
    return max(kept, key=lambda each: each.coverage) if kept else min(found, key=lambda each: each.bound)


def _sorted(logits: Tensor, targets: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the temperature, and by falling probability the probabilities and which answers are right."""
    if not len(targets):
        raise ValueError("a threshold needs validation images, got none")
    temperature = temperature_of(logits, targets)
    confidences, answers = (logits.double() / temperature).softmax(1).max(1)
    order = confidences.argsort(descending=True, stable=True)
    return temperature, confidences[order], (answers == targets)[order]


def _selection(temperature: float, confidences: Tensor, right: Tensor, answered: int, tests: int) -> Selection:
    """Return the selection that answers the surest images, and as many as are as sure as the last of them."""
    threshold = float(confidences[answered - 1])
    answered = int((confidences >= threshold).sum())
    wrong = int((~right[:answered]).sum())
    bound = _bound(wrong, answered, (1 - CONFIDENCE) / tests)
    return Selection(temperature, threshold, answered / len(right), wrong / answered, bound, len(right))


def _bound(wrong: int, of: int, chance: float) -> float:
    """Return the error at which so few wrong answers have a chance: Clopper and Pearson's upper limit."""
    from scipy.stats import beta

    return 1.0 if wrong == of else float(beta.ppf(1 - chance, wrong + 1, of - wrong))
