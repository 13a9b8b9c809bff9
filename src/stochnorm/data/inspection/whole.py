"""What is wrong with a set of images as a whole: sizes of classes, and what tells classes or splits apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats.contingency import crosstab

from stochnorm.data.inspection.findings import Finding
from stochnorm.data.inspection.look import Look
from stochnorm.data.manifest import Source, findings
from stochnorm.text import printable

__all__ = ["association", "odd_classes", "shortcuts"]

_FEW = 10  # images of a class
_UNEVEN = 20  # times as many images in the largest class as in the smallest; finetune warns from the same factor on
_TELLING = 0.3  # Cramer's V
_LEAST = 20  # images of which anything is said to tell something apart


def odd_classes(source: Source) -> list[Finding]:
    """Return the classes that are small, and whether the set is unbalanced."""
    labels = [findings(row.label) if source.multi_label else [row.label] for row in source.rows]
    sizes = dict.fromkeys(source.classes, 0)
    for name in (name for names in labels for name in names):
        sizes[name] += 1
    images = "image" if not source.multi_label else "positive image"
    found = [
        Finding("small-class", f"{printable(name)}: {n} {images}{'' if n == 1 else 's'}")
        for name, n in sizes.items()
        if n < _FEW
    ]
    smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    if sizes[largest] >= _UNEVEN * max(sizes[smallest], 1):
        large, small = (f"{printable(name)} has {sizes[name]:,}" for name in (largest, smallest))
        found.append(Finding("imbalance", f"{large} {images}s, {small}"))
    return found


def shortcuts(source: Source, looks: Sequence[Look | str]) -> list[Finding]:
    """Return which properties of the files tell classes or splits apart, with the commonest values of each.

    Args:
        source: The images.
        looks: What was seen of each, or why it cannot be read.
    """
    pairs = [(row, look) for row, look in zip(source.rows, looks, strict=True) if isinstance(look, Look)]
    targets = {"split": [row.split for row, _ in pairs]}
    if not source.multi_label:
        targets["class"] = [row.label for row, _ in pairs]
    properties = {
        "camera": [look.camera for _, look in pairs],
        "format": [look.format for _, look in pairs],
        "colour": [look.colours for _, look in pairs],
        "size": [f"{look.width} x {look.height}" for _, look in pairs],
    }
    found = []
    for name, values in properties.items():
        for target, of in targets.items():
            strength = association(values, of)
            if strength >= _TELLING:
                found.append(Finding("shortcut", f"{name} tells {_PLURAL[target]} apart: {_commonest(values, of)}"))
    return found


def association(values: Sequence[str], targets: Sequence[str]) -> float:
    """Return how much of one property another tells, in [0, 1]: Cramer's V without its bias; 0 of few images.

    Bergsma (2013), "A bias-correction for Cramer's V and Tschuprow's T".

    Example:
        >>> association(["a", "b"] * 50, ["x", "y"] * 50), association(["a", "b"] * 50, ["x"] * 50 + ["y"] * 50)
        (1.0, 0.0)
    """
    if len(values) < _LEAST or len(set(values)) < 2 or len(set(targets)) < 2:
        return 0.0
    table: NDArray[np.float64] = np.asarray(crosstab(values, targets).count, dtype=float)
    n = table.sum()
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / n
    phi = ((table - expected) ** 2 / expected).sum() / n
    r, c = table.shape
    phi = max(0.0, phi - (r - 1) * (c - 1) / (n - 1))
    sides = (side - (side - 1) ** 2 / (n - 1) - 1 for side in (r, c))
    least = min(sides)
    return float(min((phi / least) ** 0.5, 1.0)) if least > 0 else 0.0


_PLURAL = {"split": "splits", "class": "classes"}


def _commonest(values: Sequence[str], targets: Sequence[str]) -> str:
    """Say which value is the commonest of the largest targets."""
    said = []
    for target, n in Counter(targets).most_common(3):
        value, times = Counter(v for v, t in zip(values, targets, strict=True) if t == target).most_common(1)[0]
        said.append(f"{printable(target)} is {100 * times / n:.0f} % {printable(value) or 'unknown'}")
    return "; ".join(said)
