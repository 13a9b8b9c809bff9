"""A closer look at the test predictions of a run: confusion, calibration, the most confident mistakes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stochnorm.runs.calibration import Bin, calibration_bins
from stochnorm.runs.predictions import Predictions

__all__ = [
    "ClassScore",
    "Mistake",
    "Pair",
    "calibration",
    "class_scores",
    "confident_mistakes",
    "confused_pairs",
    "confusion",
    "wilson",
]


_PAIRS = 10  # of confused classes that are listed
_MISTAKES = 12  # that are shown


class ClassScore(NamedTuple):
    """The score of one class."""

    name: str
    value: float | None
    """Percent; None where it is undefined."""
    interval: tuple[float, float] | None
    """95 % interval."""
    images: int
    """Number of test images of the class."""
    precision: float | None = None
    """Percent of the images predicted as the class that are of it; 0 if none is; None without images of the class."""
    f1: float | None = None
    """Harmonic mean of accuracy (recall) and precision, percent; None without images of the class."""


class Pair(NamedTuple):
    """One class confused with another."""

    true: str
    predicted: str
    images: int
    share: float
    """Percentage of the images of the true class."""


class Mistake(NamedTuple):
    """A wrong prediction of high probability."""

    path: str
    true: str
    """The class; with several labels per image: ``no FINDING`` or ``FINDING``."""
    predicted: str
    probability: float
    """Probability of the wrong prediction."""


def confusion(predictions: Predictions) -> dict[tuple[int, int], int]:
    """Count each pair (true class, predicted class), by their numbers; pairs that occur."""
    number = {name: i for i, name in enumerate(predictions.classes)}
    pairs = zip(predictions.truth, predictions.predicted, strict=True)
    return dict(sorted(Counter((number[true], number[guess]) for true, guess in pairs).items()))


def class_scores(cells: dict[tuple[int, int], int], classes: Sequence[str]) -> list[ClassScore]:
    """Return accuracy, its Wilson interval, precision and F1 of each class, from a confusion matrix; in their order."""
    images: Counter[int] = Counter()
    answers: Counter[int] = Counter()
    for (true, guess), count in cells.items():
        images[true] += count
        answers[guess] += count
    scores = []
    for i, name in enumerate(classes):
        hits, n = cells.get((i, i), 0), images[i]
        if not n:
            scores.append(ClassScore(name, None, None, 0))
            continue
        precision, f1 = 100 * hits / max(answers[i], 1), 100 * 2 * hits / (n + answers[i])
        scores.append(ClassScore(name, 100 * hits / n, wilson(hits, n), n, precision, f1))
    return scores


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval, in percent; scipy's takes a thousand times as long, for its p-value.

    Example:
        >>> low, high = wilson(8, 10)
        >>> print(f"{low:.1f} to {high:.1f}")
        49.0 to 94.3
    """
    z = 1.959964
    middle, scale = (hits + z * z / 2) / n, 1 + z * z / n
    half = z * math.sqrt(hits * (n - hits) / n + z * z / 4) / n
    return 100 * max(0.0, (middle - half) / scale), 100 * min(1.0, (middle + half) / scale)


def confused_pairs(cells: dict[tuple[int, int], int], classes: Sequence[str]) -> list[Pair]:
    """Return the pairs of classes most often confused, the most frequent first."""
    images: Counter[int] = Counter()
    for (true, _), count in cells.items():
        images[true] += count
    wrong = [
        Pair(classes[true], classes[guess], count, 100 * count / images[true])
        for (true, guess), count in cells.items()
        if true != guess
    ]
    return sorted(wrong, key=lambda pair: (-pair.images, -pair.share))[:_PAIRS]


def confident_mistakes(predictions: Predictions, *, multi_label: bool) -> list[Mistake]:
    """Return the wrong predictions of the highest probability; each image once."""
    if multi_label:
        return _confident_findings(predictions)
    answers = zip(predictions.paths, predictions.truth, predictions.predicted, predictions.confidence, strict=True)
    wrong = [Mistake(path, true, guess, float(p)) for path, true, guess, p in answers if true != guess]
    return sorted(wrong, key=lambda mistake: -mistake.probability)[:_MISTAKES]


def _confident_findings(predictions: Predictions) -> list[Mistake]:
    """Return for each image its most wrong finding; only images with one on the wrong side of 0.5."""
    has, p = predictions.has(), predictions.probabilities
    assert p is not None
    error = np.where(has, 1 - p, p)
    worst = error.argmax(1)
    size = error.max(1)
    mistakes = []
    for i in np.argsort(-size, kind="stable")[:_MISTAKES]:
        if size[i] <= 0.5:
            break
        name = predictions.classes[worst[i]]
        true, predicted = (name, f"no {name}") if has[i, worst[i]] else (f"no {name}", name)
        mistakes.append(Mistake(predictions.paths[i], true, predicted, float(size[i])))
    return mistakes


def calibration(predictions: Predictions, *, multi_label: bool) -> list[Bin]:
    """Compare probability and accuracy as [stochnorm.runs.calibration.calibration_bins][] does.

    With one label per image: the probability of the predicted class. With several: that of each finding of each image.
    """
    if multi_label:
        assert predictions.probabilities is not None
        confidence, right = predictions.probabilities.ravel(), predictions.has().ravel()
    else:
        confidence = predictions.confidence
        right = np.array([t == p for t, p in zip(predictions.truth, predictions.predicted, strict=True)])
    return calibration_bins(confidence, right)
