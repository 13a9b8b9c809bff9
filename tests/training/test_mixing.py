"""Mixup and CutMix: the law of the mixtures, the pixels, and the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torch import nn
from torch.nn import functional as F

from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.evaluation.tasks import MultiLabel, SingleLabel
from stochnorm.models import Classifier
from stochnorm.training.mixing import Mixing, draw_mixture
from stochnorm.training.objective import Objective

CPU = torch.device("cpu")


def test_the_weight_of_mixup_has_the_law_of_beta() -> None:
    weights = [draw_mixture(0.4, 0, 32, seed=1, step=step)[0] for step in range(2000)]
    assert kstest(weights, beta(0.4, 0.4).cdf).pvalue > 0.01


def test_the_share_of_cutmix_is_the_area_that_is_left() -> None:
    drawn = np.array([draw_mixture(0, 1, 32, seed=1, step=step) for step in range(500)])
    inside, top, bottom, left, right, share = drawn.T
    assert (inside == 0).all()
    np.testing.assert_allclose(share, 1 - (bottom - top) * (right - left) / 32**2)
    assert (top >= 0).all()
    assert (top <= bottom).all()
    assert (bottom <= 32).all()
    assert (left >= 0).all()
    assert (right <= 32).all()
    assert 0.4 < share.mean() < 0.75  # 1/2, and more since rectangles are clipped at the border


def test_both_are_taken_in_turn_at_random() -> None:
    cut = [draw_mixture(0.4, 1, 32, seed=1, step=step)[0] == 0 for step in range(500)]
    assert 0.4 < np.mean(cut) < 0.6


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0)])
def test_the_share_is_that_of_the_pixels(mixup: float, cutmix: float) -> None:
    """An image of ones and one of zeros: the mean is the share of the first."""
    mixing = Mixing(mixup, cutmix, 0, CPU)
    images = torch.stack([torch.ones(3, 16, 16), torch.zeros(3, 16, 16)]).contiguous(memory_format=torch.channels_last)
    for step in range(20):
        mixing.prepare(step, 16)
        mixed = mixing.images(images)
        share = draw_mixture(mixup, cutmix, 16, 0, step)[-1]
        assert mixed[0].mean().item() == pytest.approx(share, abs=1e-6)
        assert mixed[1].mean().item() == pytest.approx(1 - share, abs=1e-6)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        if cutmix:
            assert set(mixed.unique().tolist()) <= {0.0, 1.0}


def classifier() -> Classifier:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    return Classifier(model, [model[1]], "test", "random", ("a", "b", "c"), Preprocessing(4))


def test_the_loss_is_that_of_soft_targets() -> None:
    mixing = Mixing(0.4, 0.0, 0, CPU)
    mixing.prepare(7, 4)
    share = draw_mixture(0.4, 0.0, 4, 0, 7)[-1]
    images, targets = torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 1])
    built = classifier()
    terms = Objective(built, SingleLabel(built.classes), {}, mixing=mixing, smoothing=0.1)(built.model, images, targets)
    logits = built.model(share * images + (1 - share) * images.roll(1, 0))
    one_hot = F.one_hot(targets, 3).float()
    soft = share * one_hot + (1 - share) * one_hot.roll(1, 0)
    torch.testing.assert_close(terms.logits, logits)
    torch.testing.assert_close(terms.task_loss, F.cross_entropy(logits, soft * 0.9 + 0.1 / 3))


def test_findings_are_mixed() -> None:
    mixing = Mixing(0.4, 0.0, 0, CPU)
    mixing.prepare(7, 4)
    share = draw_mixture(0.4, 0.0, 4, 0, 7)[-1]
    images, targets = torch.rand(4, 3, 4, 4), torch.tensor([[0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])
    built, weight = classifier(), torch.tensor([1.0, 2.0, 3.0])
    task = MultiLabel(built.classes, weight)
    terms = Objective(built, task, {}, mixing=mixing, smoothing=0.2)(built.model, images, targets)
    soft = share * targets + (1 - share) * targets.roll(1, 0)
    expected = F.binary_cross_entropy_with_logits(terms.logits, soft * 0.8 + 0.1, pos_weight=weight)
    torch.testing.assert_close(terms.task_loss, expected)


def test_the_score_counts_both_labels_by_their_shares() -> None:
    mixing = Mixing(0.4, 0.0, 0, CPU)
    mixing.prepare(7, 4)
    share = draw_mixture(0.4, 0.0, 4, 0, 7)[-1]
    built = classifier()
    objective = Objective(built, SingleLabel(built.classes), {}, mixing=mixing)
    score = objective.score(torch.eye(3), torch.tensor([0, 1, 2]))
    assert score.item() == pytest.approx(share)


def test_smoothing_changes_training_alone() -> None:
    task, logits, targets = SingleLabel(("a", "b")), torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    assert task.loss(logits, targets, smoothing=0.1) > task.loss(logits, targets)
    assert task.metrics(logits, targets)["loss"] == pytest.approx(task.loss(logits, targets).item())
