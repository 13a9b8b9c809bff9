"""AUC of a cross-validation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stochnorm.evaluation.auc_by_fold import auc_by_fold
from stochnorm.evaluation.metrics import multilabel_metrics


def draw(images: int = 120) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(images, 2, generator=generator) < 0.4).float()
    scores = targets + torch.randn(images, 2, generator=generator)
    return scores, targets, torch.arange(images) % 3


def test_it_is_the_mean_over_the_folds() -> None:
    scores, targets, folds = draw()
    parts = [multilabel_metrics(scores[folds == k], targets[folds == k], resamples=0)["per_class"] for k in range(3)]
    found = auc_by_fold(scores, targets, folds, resamples=50)
    assert found["per_class"] == pytest.approx(torch.tensor(parts).mean(0).tolist())
    assert found["mean_auc"] == pytest.approx(torch.tensor(parts).mean().item())
    low, high = found["mean_auc_interval"]
    assert low < found["mean_auc"] < high


def test_a_shift_of_the_scores_of_a_fold_changes_nothing() -> None:
    """That of all predictions together falls."""
    scores, targets, folds = draw()
    moved = scores + 5 * folds[:, None]
    assert auc_by_fold(moved, targets, folds, resamples=50) == auc_by_fold(scores, targets, folds, resamples=50)
    together = [multilabel_metrics(each, targets, resamples=0)["mean_auc"] for each in (scores, moved)]
    assert together[1] < together[0] - 5


def test_one_fold_is_a_test_split() -> None:
    scores, targets, _ = draw()
    groups = [f"patient {i // 2}" for i in range(len(scores))]
    found = auc_by_fold(scores, targets, torch.zeros(len(scores), dtype=torch.int64), groups=groups, resamples=100)
    wanted = multilabel_metrics(scores, targets, groups=groups, resamples=100)
    assert found == {key: pytest.approx(wanted[key]) if key != "per_class_interval" else wanted[key] for key in found}


def test_a_fold_without_positives_does_not_count() -> None:
    scores, targets, folds = draw()
    targets[folds == 0, 1] = 0
    kept = folds > 0
    found = auc_by_fold(scores, targets, folds, resamples=10)["per_class"][1]
    assert found == pytest.approx(auc_by_fold(scores[kept], targets[kept], folds[kept], resamples=10)["per_class"][1])
    targets[:, 1] = 0
    nothing = auc_by_fold(scores, targets, folds, resamples=10)
    assert nothing["per_class"][1] is None
    assert nothing["per_class_interval"][1] is None
    assert nothing["findings"] == 1
