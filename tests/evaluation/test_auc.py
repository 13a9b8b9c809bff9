"""The area under the ROC curve."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multilabel_auroc,
)

from stochnorm.evaluation.auc import auc
from stochnorm.evaluation.bootstrap import resampled


def draw(n: int, findings: int, rounded_to: float | None = None) -> tuple[Tensor, Tensor]:
    """Draw scores that depend on the targets; rounded ones have ties."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(n, findings, generator=generator) < 0.3).float()
    scores = torch.randn(n, findings, generator=generator) + targets
    return (scores if rounded_to is None else (scores / rounded_to).round() * rounded_to), targets


@pytest.mark.parametrize("rounded_to", [None, 0.5], ids=["no ties", "ties"])
def test_auc_is_that_of_torchmetrics(rounded_to: float | None) -> None:
    scores, targets = draw(300, 4, rounded_to)
    expected = multilabel_auroc(scores.sigmoid(), targets.long(), 4, average="none")
    torch.testing.assert_close(auc(scores, targets.bool())[:, 0].float(), expected)


def test_scores_a_sigmoid_would_make_equal_are_told_apart() -> None:
    assert auc(torch.tensor([[30.0], [40.0]]), torch.tensor([[False], [True]])).item() == 1


def test_auc_of_a_resample_is_that_of_its_images_repeated() -> None:
    scores, targets = draw(60, 3, rounded_to=0.5)
    counts = torch.cat(list(resampled(60, None, 7, seed=0)), dim=1)
    drawn = auc(scores, targets.bool(), counts)
    for column, count in zip(drawn.T, counts.T, strict=True):
        again = torch.arange(60).repeat_interleave(count)
        torch.testing.assert_close(column, auc(scores[again], targets[again].bool())[:, 0])


def test_auc_is_undefined_without_positives_or_negatives() -> None:
    positive = torch.tensor([[False, True, True], [False, True, False]])
    assert auc(torch.zeros(2, 3), positive)[:, 0].tolist() == [pytest.approx(float("nan"), nan_ok=True)] * 2 + [0.5]
