"""Confusion, mistakes and calibration of a run's test predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torchmetrics.functional.classification import multiclass_confusion_matrix

from stochnorm.evaluation.metrics import classification_metrics, multilabel_metrics
from stochnorm.report.page.analysis import (
    calibration,
    class_scores,
    confident_mistakes,
    confused_pairs,
    confusion,
    wilson,
)
from stochnorm.runs.calibration import calibration_error
from stochnorm.runs.predictions import Predictions, format_predictions, read_predictions

CLASSES = ["cat", 'a "dog", big', "cow"]


def predictions(path: Path, n: int = 60, scale: float = 2) -> tuple[Predictions, torch.Tensor, torch.Tensor]:
    logits = scale * torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 3
    p = logits.softmax(1)
    names = [f"{i}, a.png" for i in range(n)]
    guesses = [CLASSES[i] for i in p.argmax(1)]
    path.write_text(format_predictions(names, guesses, p.tolist(), CLASSES, [CLASSES[i] for i in labels]))
    return read_predictions(path, multi_label=False), logits, labels


def test_confusion_and_class_scores_are_those_of_the_metrics(tmp_path: Path) -> None:
    found, logits, labels = predictions(tmp_path / "p.csv")
    metrics = classification_metrics(logits, labels)
    cells = confusion(found)
    matrix = np.zeros((3, 3), int)
    for (true, guess), count in cells.items():
        matrix[true, guess] = count
    assert matrix.tolist() == multiclass_confusion_matrix(logits, labels, 3).tolist()
    scores = class_scores(cells, found.classes)
    assert [s.value for s in scores] == pytest.approx(metrics["per_class"])
    assert [s.images for s in scores] == [20, 20, 20]
    assert [s.precision for s in scores] == pytest.approx(metrics["per_class_precision"])
    assert [s.f1 for s in scores] == pytest.approx(metrics["per_class_f1"])
    assert class_scores({(0, 0): 1}, ["seen", "unseen"])[1] == ("unseen", None, None, 0, None, None)
    never = class_scores({(0, 0): 1, (1, 0): 1}, ["seen", "never predicted"])
    assert [(s.value, s.precision, s.f1) for s in never] == [(100, 50, pytest.approx(200 / 3)), (0, 0, 0)]


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 7), (29, 30), (30, 30)])
def test_the_interval_of_a_class_is_wilsons(hits: int, n: int) -> None:
    bounds = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx((100 * bounds.low, 100 * bounds.high), abs=1e-4)


def test_confused_pairs_are_the_most_frequent_and_never_a_class_with_itself() -> None:
    cells = {(0, 0): 50, (0, 1): 2, (1, 0): 5, (1, 2): 5, (1, 1): 1, (2, 2): 9, (2, 0): 1}
    pairs = confused_pairs(cells, CLASSES)[:3]
    assert [(p.true, p.predicted, p.images) for p in pairs] == [
        (CLASSES[1], "cat", 5),
        (CLASSES[1], "cow", 5),
        ("cat", CLASSES[1], 2),
    ]
    assert pairs[0].share == pytest.approx(100 * 5 / 11)


def test_mistakes_are_wrong_and_the_most_confident_come_first(tmp_path: Path) -> None:
    found, logits, labels = predictions(tmp_path / "p.csv")
    confidence, guess = logits.softmax(1).max(1)
    wrong = sorted(confidence[guess != labels].tolist(), reverse=True)
    mistakes = confident_mistakes(found, multi_label=False)
    assert [m.probability for m in mistakes] == pytest.approx(wrong[:12], abs=1e-6)
    assert len(wrong) > 12
    assert all(m.true != m.predicted for m in mistakes)


@pytest.mark.parametrize("scale", [0, 1, 100], ids=["at an edge of a bin", "between", "many are certain"])
def test_the_bins_of_the_calibration_give_the_expected_calibration_error(tmp_path: Path, scale: float) -> None:
    found, logits, labels = predictions(tmp_path / "p.csv", n=300, scale=scale)
    error = calibration_error(calibration(found, multi_label=False))
    assert 100 * error == pytest.approx(classification_metrics(logits, labels)["ece"], abs=1e-9)


def multi_label(path: Path) -> tuple[Predictions, torch.Tensor]:
    p = torch.tensor([[0.9, 0.2, 0.4], [0.1, 0.7, 0.1], [0.3, 0.3, 0.05]])
    text = format_predictions(
        ["0.png", "1.png", "2.png"], ["cat", "dog", ""], p.tolist(), ["cat", "dog", "cow"], ["cat|dog", "", "cow"]
    )
    path.write_text(text)
    return read_predictions(path, multi_label=True), p


def test_with_several_labels_a_mistake_is_the_finding_that_is_most_wrong(tmp_path: Path) -> None:
    found, _ = multi_label(tmp_path / "p.csv")
    mistakes = confident_mistakes(found, multi_label=True)
    assert [(m.path, m.true, m.predicted) for m in mistakes] == [
        ("2.png", "cow", "no cow"),
        ("0.png", "dog", "no dog"),
        ("1.png", "no dog", "dog"),
    ]
    assert [m.probability for m in mistakes] == pytest.approx([0.95, 0.8, 0.7])


def test_with_several_labels_the_calibration_is_of_every_finding(tmp_path: Path) -> None:
    found, p = multi_label(tmp_path / "p.csv")
    bins = calibration(found, multi_label=True)
    assert sum(b.size for b in bins) == p.numel()
    targets = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    assert sum(b.size * b.frequency for b in bins) == pytest.approx(float(targets.sum()))
    assert multilabel_metrics(p.logit(), targets, resamples=0)["positives"] == found.has().sum(0).tolist()
