"""The metrics against scikit-learn's, on random cases with ties, absent classes and findings of one kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stochnorm.evaluation.metrics import classification_metrics, multilabel_metrics

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
calibration = pytest.importorskip("sklearn.calibration")

CASES = 200
_BINS = 15


def approx(percent: float) -> object:
    return pytest.approx(percent, abs=1e-4)


def calibration_error(right: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
    """By the reliability curve; rounding keeps a probability off the edges of bins, whose side is a convention."""
    shares, means = calibration.calibration_curve(right, probability, n_bins=_BINS)
    counts = np.histogram(probability, _BINS, (0, 1))[0]
    return 100 * float((counts[counts > 0] * np.abs(shares - means)).sum() / len(right))


@pytest.mark.parametrize("block", range(4))
def test_one_label_an_image(block: int) -> None:
    for case in range(block, CASES, 4):
        draw = np.random.default_rng(case)
        images, classes = int(draw.integers(1, 40)), int(draw.integers(2, 7))
        labels = draw.integers(0, int(draw.integers(1, classes + 1)), images)  # the last classes may be absent
        logits = draw.normal(0, draw.choice([0.3, 3, 60]), (images, classes))
        logits[np.arange(images), labels] += draw.choice([0, 2])
        if case % 3 == 0:
            logits = np.round(logits)  # ties
        found = classification_metrics(torch.tensor(logits), torch.tensor(labels))
        answers, present = logits.argmax(1), sorted(set(labels.tolist()))
        settings = {"labels": present, "average": None, "zero_division": 0}
        per_class = {
            "per_class": metrics.recall_score(labels, answers, **settings),
            "per_class_precision": metrics.precision_score(labels, answers, **settings),
            "per_class_f1": metrics.f1_score(labels, answers, **settings),
        }
        for name, values in per_class.items():
            assert [found[name][c] for c in present] == [approx(100 * value) for value in values], (case, name)
            assert all(found[name][c] is None for c in range(classes) if c not in present)
        assert found["macro_f1"] == approx(100 * per_class["per_class_f1"].mean())
        assert found["macro_precision"] == approx(100 * per_class["per_class_precision"].mean())
        assert found["mean_per_class"] == approx(100 * per_class["per_class"].mean())
        assert found["top1"] == approx(100 * metrics.accuracy_score(labels, answers))
        probabilities = torch.tensor(logits).softmax(1).numpy()
        if probabilities[np.arange(images), labels].min() > 1e-12:  # scikit-learn bounds the others
            loss = metrics.log_loss(labels, probabilities, labels=range(classes))
            assert found["loss"] == pytest.approx(loss, rel=1e-6)
        expected = calibration_error(answers == labels, probabilities.max(1))
        assert found["ece"] == pytest.approx(expected, abs=2e-4), case


@pytest.mark.parametrize("block", range(4))
def test_several_labels_an_image(block: int) -> None:
    for case in range(block, CASES, 4):
        draw = np.random.default_rng(case)
        images, findings = int(draw.integers(1, 40)), int(draw.integers(1, 5))
        targets = (draw.random((images, findings)) < draw.choice([0, 0.1, 0.5, 1], findings)).astype(int)
        logits = draw.normal(0, draw.choice([0.3, 3, 30]), (images, findings)) + targets
        if case % 3 == 0:
            logits = np.round(logits)  # ties
        found = multilabel_metrics(torch.tensor(logits), torch.tensor(targets), resamples=0)
        probabilities = torch.tensor(logits).sigmoid().numpy()
        both = [0 < targets[:, f].sum() < images for f in range(findings)]
        areas = [100 * metrics.roc_auc_score(targets[:, f], logits[:, f]) if both[f] else None for f in range(findings)]
        assert found["per_class"] == [None if area is None else approx(area) for area in areas], case
        precisions = [metrics.average_precision_score(targets[:, f], logits[:, f]) for f in np.flatnonzero(both)]
        if precisions:
            assert found["mean_auc"] == approx(np.mean([area for area in areas if area is not None]))
            assert found["average_precision"] == approx(100 * np.mean(precisions)), case
        else:
            assert found["mean_auc"] is found["average_precision"] is None
        errors = [calibration_error(targets[:, f] == 1, probabilities[:, f]) for f in range(findings)]
        assert found["ece"] == pytest.approx(np.mean(errors), abs=2e-4), case


def test_large_scores_are_not_tied_by_the_sigmoid() -> None:
    scores, present = torch.tensor([50.0, 45.0, 60.0, 41.0, -3.0])[:, None], torch.tensor([1, 0, 0, 1, 0])[:, None]
    found = multilabel_metrics(scores, present.float(), resamples=0)
    assert found["average_precision"] == approx(100 * metrics.average_precision_score(present[:, 0], scores[:, 0]))
    assert found["mean_auc"] == approx(100 * metrics.roc_auc_score(present[:, 0], scores[:, 0]))
