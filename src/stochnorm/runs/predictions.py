"""The files of predictions: write them, and read `test_predictions.csv`."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stochnorm.data.manifest import findings
from stochnorm.spreadsheet import format_csv, plain

__all__ = ["Predictions", "format_confusion", "format_predictions", "read_predictions"]

_KNOWN = ["path", "label", "predicted", "probability"]
"""The columns before those of the classes."""


@dataclass(frozen=True)
class Predictions:
    """The content of `test_predictions.csv`: n images, c classes."""

    paths: list[str]
    truth: list[str]
    """The class; with several labels per image its findings, joined by "|"."""
    predicted: list[str]
    confidence: NDArray[np.float64]
    """(n,): the probability of the most probable class, in [0, 1]."""
    classes: list[str]
    probabilities: NDArray[np.float64] | None = None
    """(n, c), in [0, 1]; None if they were not read."""

    def has(self) -> NDArray[np.bool_]:
        """(n, c): which findings each image has, with several labels per image."""
        present = [set(findings(label)) for label in self.truth]
        return np.array([[name in names for name in self.classes] for names in present])


def format_predictions(
    paths: Sequence[str],
    predicted: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    classes: Sequence[str],
    truth: Sequence[str] | None = None,
) -> str:
    """CSV text: path, [label,] predicted, probability of the most probable class, and a column per class.

    Args:
        paths: n names.
        predicted: n labels.
        probabilities: n rows of num_classes.
        classes: num_classes names.
        truth: n labels, where known.
    """
    known = [name for name in _KNOWN if name != "label" or truth is not None]
    rows = [[*known, *(f"p({name})" for name in classes)]]
    for i, (path, label, p) in enumerate(zip(paths, predicted, probabilities, strict=True)):
        true = [] if truth is None else [truth[i]]
        rows.append([path, *true, label, f"{max(p):.6f}", *(f"{value:.6f}" for value in p)])
    return format_csv(rows)


def format_confusion(truth: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> str:
    """CSV text: a row per true class, a column per predicted one, counts of images."""
    counts = Counter(zip(truth, predicted, strict=True))
    return format_csv(
        [["true / predicted", *classes], *([true, *(counts[true, name] for name in classes)] for true in classes)]
    )


def read_predictions(path: Path, *, multi_label: bool, probabilities: bool = False) -> Predictions:
    """Read what `format_predictions` wrote with the truth.

    Args:
        path: The file.
        multi_label: Whether an image has any number of labels.
        probabilities: Read those of all classes too; with several labels per image they always are.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        columns = next(reader, [])
        width = len(columns)
        whole = multi_label or probabilities
        kept = width if whole else 4  # most of the file are probabilities that nothing here is made of
        rows, damaged = [], False
        for row in reader:
            rows.append(row[:kept])
            damaged |= len(row) != width
    if columns[:4] != _KNOWN or width == 4 or not rows or damaged:
        raise ValueError(f"{path} is damaged: it must hold {','.join(_KNOWN)} and a column per class")
    paths, truth, predicted = ([plain(row[i]) for row in rows] for i in range(3))
    try:
        confidence = np.array([float(row[3]) for row in rows])
        all_of_them = np.array([[float(p) for p in row[4:]] for row in rows]) if whole else None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return Predictions(paths, truth, predicted, confidence, [name[2:-1] for name in columns[4:]], all_of_them)
