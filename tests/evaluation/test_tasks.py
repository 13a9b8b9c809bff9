"""The two kinds of classification behind one interface."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from stochnorm.evaluation.metrics import classification_metrics, multilabel_metrics
from stochnorm.evaluation.tasks import MultiLabel, SingleLabel, Task, class_weights_of, pos_weight_of

CLASSES = ("a", "b", "c")
CASES = [
    (SingleLabel(CLASSES), torch.tensor([0, 2, 1, 1])),
    (MultiLabel(CLASSES), torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 0], [1, 0, 0]])),
]


def logits_of_four() -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("task", "targets"), CASES, ids=["single", "multi"])
def test_metrics_hold_the_score_and_the_training_loss_and_are_json(task: Task, targets: Tensor) -> None:
    logits = logits_of_four()
    metrics = task.metrics(logits, targets)
    assert 0 <= metrics[task.score] <= 100
    assert metrics["loss"] == pytest.approx(float(task.loss(logits, targets)))
    assert metrics["images"] == 4
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


@pytest.mark.parametrize(("task", "targets"), CASES, ids=["single", "multi"])
def test_metrics_are_the_pure_functions(task: Task, targets: Tensor) -> None:
    logits = logits_of_four()
    expected = (classification_metrics if isinstance(task, SingleLabel) else multilabel_metrics)(logits, targets)
    assert task.metrics(logits, targets) == expected


def test_probabilities_of_single_labels_sum_to_one_and_of_several_labels_do_not_compete() -> None:
    logits = torch.tensor([[0.0, 0.0, 100.0]])
    torch.testing.assert_close(SingleLabel(CLASSES).probabilities(logits), torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(MultiLabel(CLASSES).probabilities(logits), torch.tensor([[0.5, 0.5, 1.0]]))


def test_the_single_label_loss_is_cross_entropy() -> None:
    logits, targets = logits_of_four(), torch.tensor([0, 2, 1, 1])
    expected = -logits.log_softmax(1)[range(4), targets].mean()
    torch.testing.assert_close(SingleLabel(CLASSES).loss(logits, targets), expected)


def test_class_weights_make_the_sums_of_all_classes_equal_and_their_mean_over_images_one() -> None:
    labels = torch.tensor([0] * 12 + [1] * 3 + [2])
    weights = class_weights_of(labels, 3)
    torch.testing.assert_close(weights * labels.bincount(), torch.full((3,), 16 / 3))
    assert weights[labels].mean() == pytest.approx(1)
    absent = class_weights_of(torch.tensor([0, 0, 0, 2]), 4)
    assert absent.tolist() == [pytest.approx(2 / 3), 1, 2, 1]


def test_the_weighted_loss_is_a_mean_over_images_so_that_parts_add_up() -> None:
    logits, targets = logits_of_four(), torch.tensor([0, 2, 1, 1])
    weights = torch.tensor([0.5, 1.0, 3.0])
    task = SingleLabel(CLASSES, weights)
    each = -logits.log_softmax(1)[range(4), targets]
    torch.testing.assert_close(task.loss(logits, targets), (weights[targets] * each).mean())
    parts = 0.75 * task.loss(logits[:3], targets[:3]) + 0.25 * task.loss(logits[3:], targets[3:])
    torch.testing.assert_close(parts, task.loss(logits, targets))
    assert task.metrics(logits, targets) == SingleLabel(CLASSES).metrics(logits, targets)  # comparable


def test_positive_weights_weigh_the_positive_term_alone() -> None:
    logits, targets = logits_of_four(), CASES[1][1]
    weight = torch.tensor([1.0, 3.0, 0.5])
    p, y = logits.sigmoid(), targets.float()
    expected = -(weight * y * p.log() + (1 - y) * (1 - p).log()).mean()
    task = MultiLabel(CLASSES, weight)
    torch.testing.assert_close(task.loss(logits, targets), expected)
    assert task.metrics(logits, targets)["loss"] == pytest.approx(float(expected))


def test_groups_and_the_number_of_resamples_reach_the_bootstrap() -> None:
    logits, targets = (x.repeat(10, 1) for x in (logits_of_four(), CASES[1][1]))
    width = {}
    for groups in (None, [str(i % 20) for i in range(40)]):
        low, high = MultiLabel(CLASSES).metrics(logits, targets, groups=groups)["mean_auc_interval"]
        width[groups is None] = high - low
    assert width[False] > 1.2 * width[True]
    assert MultiLabel(CLASSES, resamples=0).metrics(logits, targets)["mean_auc_interval"] is None
    logits = logits_of_four()
    single = SingleLabel(CLASSES).metrics(logits, CASES[0][1], groups=["p"] * 4)
    assert single["top1_interval"] == pytest.approx([single["top1"]] * 2)


def test_a_weight_balances_the_two_sides_of_a_finding() -> None:
    targets = torch.tensor([[1, 1], [0, 1], [0, 1], [0, 0]])
    weight = pos_weight_of(targets)
    assert weight.tolist() == [3, pytest.approx(1 / 3)]
    torch.testing.assert_close(weight * targets.sum(0), (1 - targets).sum(0).float())
    rare = torch.zeros(1001, 1)
    rare[0] = 1
    assert pos_weight_of(rare).item() == 100
    assert pos_weight_of(rare, cap=2000).item() == 1000


def test_a_finding_of_one_side_weighs_one() -> None:
    assert pos_weight_of(torch.tensor([[1, 0, 1], [0, 0, 1], [0, 0, 1]])).tolist() == [2, 1, 1]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"a positive number for each of 3 findings, got \[1.0, 2.0\]"):
        MultiLabel(CLASSES, torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"class_weights must be a positive number for each of 3 classes, got \[1.0\]"):
        SingleLabel(CLASSES, torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"got \[1.0, 0.0, 1.0\]"):
        MultiLabel(CLASSES, torch.tensor([1.0, 0, 1]))
