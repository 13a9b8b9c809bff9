"""Labels that a model finds unlikely: of images that it has not been trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stochnorm.data import Row, Source, findings, read_source
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.names import data_name
from stochnorm.runs.predictions import Predictions, read_predictions
from stochnorm.spreadsheet import format_csv
from stochnorm.text import DASH, count

__all__ = ["Doubt", "Doubts", "confident_classes", "doubts_of"]


@dataclass(frozen=True)
class Doubt:
    """What a model says about the label of an image."""

    row: Row
    """The image with its given label."""
    suggested: str
    """The label that the model finds more likely, in one class or finding; the given one if there is none."""
    confidence: float
    """Probability of the given label, in [0, 1]; with several findings, that of the least likely one."""
    suspected: bool
    """Whether confident learning takes the label for wrong."""


@dataclass(frozen=True)
class Doubts:
    """The labels of a set of images, the least likely first."""

    name: str
    """Short name of the data."""
    source: Source
    """All images."""
    doubts: list[Doubt]
    """Those that a model has predicted without being trained on them."""
    folds: int
    """Number of folds of the run; 0: only test images were predicted."""

    @property
    def suspected(self) -> list[Doubt]:
        """Labels that confident learning takes for wrong, the least likely first."""
        return [doubt for doubt in self.doubts if doubt.suspected]

    @property
    def hard(self) -> list[Doubt]:
        """Images with an unlikely label that is not suspected, the least likely first."""
        return [doubt for doubt in self.doubts if not doubt.suspected and doubt.suggested != doubt.row.label]

    def manifest(self) -> str:
        """Return all images as a manifest, the least likely labels first, to correct the column of labels.

        The columns `suggested`, `suspected` and `confidence` are for the reader; `finetune` does not look at them.
        """
        several = self.source.multi_label
        columns = ["path", "labels" if several else "label"]
        own = [name for name in ("split", "group") if any(getattr(row, name) for row in self.source.rows)]
        lines: list[list[str]] = [[*columns, *own, "suggested", "suspected", "confidence"]]

        def add(row: Row, *said: str) -> None:
            lines.append([row.path, row.label, *(getattr(row, name) for name in own), *said])

        for doubt in self.doubts:
            add(doubt.row, doubt.suggested, "yes" if doubt.suspected else "", f"{doubt.confidence:.4f}")
        known = {doubt.row.path for doubt in self.doubts}
        for row in self.source.rows:
            if row.path not in known:
                add(row, "", "", "")
        return format_csv(lines)

    def __str__(self) -> str:
        images = count(len(self.source.rows), "image")
        of = f"{len(self.doubts):,} of {images} predicted by models that have not seen them"
        lines = [
            f"{self.name}: {of}",
            f"{count(len(self.suspected), 'label')} suspected, {len(self.hard):,} hard",
        ]
        lines += [f"{d.row.path}: {d.row.label or DASH}, or {d.suggested or DASH}?" for d in self.suspected[:5]]
        return "\n".join(lines)


def doubts_of(run: Run) -> Doubts:
    """Rank the labels of a run's images by how likely the model finds them.

    A run with `folds` has a prediction of every image by a model that has not seen it; another one of its test images.
    The order is that of self-confidence, and suspected are the labels that confident learning counts as errors:
    Northcutt, Jiang and Chuang (2021), "Confident Learning: Estimating Uncertainty in Dataset Labels", section 3.1.
    Each finding of a multi-label set is a question of its own with the answers yes and no.

    Raises:
        FileNotFoundError: The run is not finished, has no test images, or its images do not exist.
        ValueError: A file is damaged.
    """
    if not run.predictions.is_file():
        raise FileNotFoundError(
            f"{run.path}: has no test_predictions.csv; give the directory of a finished run with test images, best "
            "one of finetune --folds 5"
        )
    config = FinetuneConfig.load(run.config)
    source = read_source(config.data)
    rows = {row.path: row for row in source.rows}
    found = read_predictions(run.predictions, multi_label=source.multi_label, probabilities=True)
    lost = [path for path in found.paths if path not in rows]
    if lost:
        raise FileNotFoundError(
            f"{config.data}: has no image {lost[0]}, which {run.path} predicted ({len(lost)} such); restore the images"
        )
    known = _of_findings(found) if source.multi_label else _of_classes(found)
    doubts = [
        Doubt(rows[path], said, float(confidence), bool(wrong))
        for path, (said, confidence, wrong) in zip(found.paths, known, strict=True)
    ]
    return Doubts(
        data_name(config.data),
        source,
        sorted(doubts, key=lambda doubt: (doubt.confidence, doubt.row.path)),
        config.folds,
    )


def confident_classes(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class that each image is confidently counted in by confident learning; -1: in none.

    A class is possible for an image whose probability of it is at least the mean over the images with that label; of
    several possible ones, the most probable counts.

    Args:
        probabilities: (n, c), in [0, 1], by models that have not been trained on the image.
        labels: (n,), the given classes, in [0, c).

    Example:
        >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.2, 0.8]])
        >>> confident_classes(p, np.array([0, 0, 1, 1])).tolist()
        [0, -1, 0, 1]
    """
    given = np.arange(probabilities.shape[1]) == labels[:, None]
    sizes = given.sum(0)
    thresholds = np.where(sizes > 0, (probabilities * given).sum(0) / np.maximum(sizes, 1), np.inf)
    possible = probabilities >= thresholds - 1e-9
    best = np.where(possible, probabilities, -1.0).argmax(1)
    return np.where(possible.any(1), best, -1)


def _of_classes(found: Predictions) -> list[tuple[str, float, bool]]:
    """Return of each image the most probable class, the probability of its label, and whether that is suspected."""
    assert found.probabilities is not None
    place = {name: i for i, name in enumerate(found.classes)}
    labels = np.array([place[name] for name in found.truth], dtype=np.int64)
    confident = confident_classes(found.probabilities, labels)
    predicted = np.array([place[name] for name in found.predicted], dtype=np.int64)
    wrong: NDArray[np.bool_] = (confident >= 0) & np.not_equal(confident, labels) & np.not_equal(predicted, labels)
    own = found.probabilities[np.arange(len(labels)), labels]
    return [(found.predicted[i], own[i], wrong[i]) for i in range(len(labels))]


def _of_findings(found: Predictions) -> list[tuple[str, float, bool]]:
    assert found.probabilities is not None
    has = found.has()
    own = np.where(has, found.probabilities, 1 - found.probabilities)
    wrong = np.zeros_like(has)
    for i in range(len(found.classes)):
        answers = np.stack([1 - found.probabilities[:, i], found.probabilities[:, i]], 1)
        given = has[:, i].astype(np.int64)
        confident = confident_classes(answers, given)
        wrong[:, i] = (confident >= 0) & (confident != given) & (answers.argmax(1) != given)
    # The least likely finding among those that are suspected, if there is one.
    suspects = np.asarray(wrong.any(1))
    least = np.where(suspects[:, None] & ~wrong, 2.0, own).argmin(1)
    said = []
    for truth, place, confidences, suspected in zip(found.truth, least, own, suspects, strict=True):
        confidence = float(confidences[place])
        other = _flipped(truth, found.classes, int(place)) if confidence < 0.5 else truth
        said.append((other, confidence, bool(suspected)))
    return said


def _flipped(label: str, classes: Sequence[str], place: int) -> str:
    """Return the findings of an image with one of them added or taken away."""
    present = set(findings(label)) ^ {classes[place]}
    return "|".join(name for name in classes if name in present)
