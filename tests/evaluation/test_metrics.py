"""Metrics against values computed by hand, and the bootstrap against what it replaces."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multilabel_average_precision,
)

from stochnorm.evaluation.auc import auc
from stochnorm.evaluation.metrics import classification_metrics, multilabel_metrics


def draw(n: int, findings: int, rounded_to: float | None = None) -> tuple[Tensor, Tensor]:
    """Draw scores that depend on the targets; rounded ones have ties."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(n, findings, generator=generator) < 0.3).float()
    scores = torch.randn(n, findings, generator=generator) + targets
    return (scores if rounded_to is None else (scores / rounded_to).round() * rounded_to), targets


def test_single_label_metrics_by_hand() -> None:
    logits = torch.tensor([[2.0, 0, 0, 0], [2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    metrics = classification_metrics(logits, torch.tensor([0, 0, 0, 1]))
    assert metrics["images"] == 4
    assert metrics["top1"] == 50
    assert metrics["per_class"] == [pytest.approx(200 / 3), 0, None, None]
    assert metrics["mean_per_class"] == pytest.approx(100 / 3)  # over the two classes that have images
    # Wilson's interval for 2 of 4 (Wilson 1927): (p + z^2/2n -+ z sqrt(p q / n + z^2 / 4 n^2)) / (1 + z^2 / n)
    assert metrics["top1_interval"] == pytest.approx([15.0036, 84.9964], abs=1e-3)
    assert metrics["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, torch.tensor([0, 0, 0, 1]))))


def test_calibration_is_that_of_the_softmax_even_of_logits_that_look_like_probabilities() -> None:
    logits = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    metrics = classification_metrics(logits, torch.tensor([0, 1, 1, 0]))
    confidence = 1 / (1 + math.exp(-1))  # of all four, in one bin with half of the images right
    assert metrics["ece"] == pytest.approx(100 * (confidence - 0.5), abs=1e-3)


def test_certain_predictions_are_in_the_last_bin() -> None:
    logits = torch.zeros(200, 2)
    logits[:100, 0], logits[100:, 0] = 40, 3.5  # probability 1.0 (50 of 100 right) and 0.97 (none right)
    labels = (torch.arange(200) < 50).long()
    confidence = (100 + 100 / (1 + math.exp(-3.5))) / 200
    expected = 100 * (confidence - 150 / 200)  # all in one bin: images 50 to 199 are right
    assert classification_metrics(logits, labels)["ece"] == pytest.approx(expected, abs=1e-3)
    assert expected == pytest.approx(23.53, abs=5e-3)
    metrics = multilabel_metrics(logits, torch.stack([1 - labels, torch.ones(200)], 1), resamples=0)
    other = 100 * 0.5  # of the second finding: all probabilities are 0.5, all images have it
    assert metrics["ece"] == pytest.approx((expected + other) / 2, abs=1e-3)


def test_accuracy_and_calibration_are_those_of_torchmetrics() -> None:
    logits, _ = draw(200, 5)
    labels = torch.randint(5, (200,), generator=torch.Generator().manual_seed(1))
    metrics = classification_metrics(logits, labels)
    per_class = multiclass_accuracy(logits, labels, 5, average=None)
    assert metrics["per_class"] == pytest.approx((100 * per_class).tolist(), abs=1e-3)
    assert metrics["mean_per_class"] == pytest.approx(100 * float(per_class.mean()), abs=1e-3)
    assert metrics["ece"] == pytest.approx(100 * float(multiclass_calibration_error(logits.softmax(1), labels, 5)))


def test_a_model_that_always_answers_with_the_largest_class_is_seen() -> None:
    labels = torch.tensor([0] * 123 + [1] * 10)
    metrics = classification_metrics(torch.tensor([[1.0, 0]]).expand(133, 2), labels)
    assert metrics["top1"] == metrics["majority"] == pytest.approx(100 * 123 / 133)
    assert metrics["per_class"] == [100, 0]
    assert metrics["per_class_precision"] == [pytest.approx(100 * 123 / 133), 0]  # never predicted: 0
    f1 = 100 * 2 * 123 / (2 * 123 + 10)  # 2 TP / (2 TP + FP + FN)
    assert metrics["per_class_f1"] == [pytest.approx(f1), 0]
    assert metrics["macro_f1"] == pytest.approx(f1 / 2)


def test_precision_and_f1_are_those_of_torchmetrics_over_the_classes_with_images() -> None:
    logits, _ = draw(200, 6)
    labels = torch.randint(5, (200,), generator=torch.Generator().manual_seed(1))  # none of the sixth
    metrics = classification_metrics(logits, labels)
    for name, function in (("precision", multiclass_precision), ("f1", multiclass_f1_score)):
        expected = 100 * function(logits, labels, 6, average=None)[:5].double()
        assert metrics[f"per_class_{name}"] == [*(pytest.approx(x, abs=1e-3) for x in expected.tolist()), None]
        assert metrics[f"macro_{name}"] == pytest.approx(float(expected.mean()), abs=1e-3)


def test_multilabel_metrics_by_hand() -> None:
    logits = torch.tensor([[2.0, 0, 1], [1, 0, 1], [0, 0, 1], [-1, 0, 1]])
    targets = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    metrics = multilabel_metrics(logits, targets)
    assert metrics["images"] == 4
    assert metrics["per_class"] == [75, 50, None]  # 3 of 4 pairs; only ties; no positive image
    assert metrics["mean_auc"] == 62.5
    assert metrics["positives"] == [2, 1, 0]
    assert metrics["findings"] == 2
    assert metrics["average_precision"] == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1 / 4) / 2)
    expected_loss = nn.functional.binary_cross_entropy_with_logits(logits, targets.float())
    assert metrics["loss"] == pytest.approx(float(expected_loss))
    # by finding: each image of the first in a separate bin; in the others all in one
    errors = [float((logits[:, 0].sigmoid() - targets[:, 0]).abs().mean()), 0.5 - 0.25, 1 / (1 + math.exp(-1))]
    assert metrics["ece"] == pytest.approx(100 * sum(errors) / 3, abs=1e-3)
    assert metrics["per_class_interval"][2] is None


def test_average_precision_is_that_of_torchmetrics() -> None:
    scores, targets = draw(300, 4)
    expected = float(multilabel_average_precision(scores.sigmoid(), targets.long(), 4))
    assert multilabel_metrics(scores, targets, resamples=0)["average_precision"] == pytest.approx(100 * expected)


def test_without_a_defined_finding_there_is_no_mean() -> None:
    metrics = multilabel_metrics(torch.randn(3, 2), torch.zeros(3, 2))
    absent = ("mean_auc", "mean_auc_interval", "average_precision")
    assert [metrics[key] for key in absent] == [None] * 3
    assert metrics["per_class"] == metrics["per_class_interval"] == [None, None]


def test_the_interval_has_the_width_of_the_closed_formula() -> None:
    scores, targets = draw(2000, 1)
    low, high = multilabel_metrics(scores, targets)["mean_auc_interval"]
    # Hanley and McNeil 1982, for the variance of an AUC
    area = float(auc(scores, targets.bool()))
    m, n = int(targets.sum()), int((1 - targets).sum())
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (m - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)) / (m * n)
    assert high - low == pytest.approx(2 * 1.96 * 100 * variance**0.5, rel=0.15)
    assert (low + high) / 2 == pytest.approx(100 * area, abs=0.3)


@pytest.mark.parametrize("rare", [0, 1], ids=["negative", "positive"])
def test_a_finding_has_an_interval_from_five_images_of_either_side_on(rare: int) -> None:
    scores = draw(40, 2)[0]
    for images, known in ((4, False), (5, True)):
        targets = torch.full((40, 2), 1 - rare)
        targets[:images] = rare
        metrics = multilabel_metrics(scores, targets)
        assert [interval is not None for interval in metrics["per_class_interval"]] == [known] * 2
        assert (metrics["mean_auc_interval"] is not None) == known
        assert metrics["mean_auc"] is not None


def test_an_interval_takes_five_groups_however_many_images_they_have() -> None:
    scores, targets = draw(80, 1)
    targets[:] = 0
    targets[:40] = 1
    for patients, known in ((4, False), (5, True)):
        groups = [f"{i < 40} {i % patients}" for i in range(80)]
        assert (multilabel_metrics(scores, targets, groups=groups)["per_class_interval"][0] is not None) == known


def test_a_resample_that_misses_a_finding_counts_with_the_others() -> None:
    scores, targets = draw(20, 20)[0], torch.eye(20)  # one positive image each: no resample draws them all
    targets[:, 0] = torch.arange(20) % 2
    metrics = multilabel_metrics(scores, targets)
    assert metrics["mean_auc_interval"][0] < metrics["mean_auc"] < metrics["mean_auc_interval"][1]
    assert metrics["findings"] == 20


def test_copies_of_an_image_widen_the_interval_only_if_they_are_grouped() -> None:
    scores, targets = (t.repeat(8, 1) for t in draw(60, 2))
    patients = [str(i % 60) for i in range(480)]
    alone, grouped = (multilabel_metrics(scores, targets, groups=g)["mean_auc_interval"] for g in (None, patients))
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])
    logits, labels = scores, targets[:, 0].long()
    alone, grouped = (classification_metrics(logits, labels, groups=g)["top1_interval"] for g in (None, patients))
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])
    once = classification_metrics(logits[:60], labels[:60])["top1_interval"]  # what 60 images are worth
    assert grouped == pytest.approx(once, abs=3)


def test_targets_other_than_0_and_1_are_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"of the shape of the logits \(2, 3\), got values from -1 to 1 of shape \(2, 3\)"
    ):
        multilabel_metrics(torch.zeros(2, 3), torch.tensor([[0, 1, -1], [0, 0, 0]]))
    with pytest.raises(ValueError, match=r"of shape \(2,\)"):
        multilabel_metrics(torch.zeros(2, 3), torch.zeros(2))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_has_no_metrics(value: float) -> None:
    logits = torch.tensor([[1.0, 0], [0, value], [0, 1]])
    with pytest.raises(FloatingPointError, match="logits must be finite, but those of 1 of 3 images are not"):
        classification_metrics(logits, torch.tensor([0, 1, 0]))
    with pytest.raises(FloatingPointError, match="logits must be finite, but those of 1 of 3 images are not"):
        multilabel_metrics(logits, torch.tensor([[0, 1], [1, 0], [1, 1]]))


def test_the_loss_of_the_largest_logits_is_finite() -> None:
    logits = torch.tensor([[3e38, -3e38], [-3e38, 3e38]])
    assert math.isfinite(classification_metrics(logits, torch.tensor([1, 0]))["loss"])
    assert math.isfinite(multilabel_metrics(logits, torch.tensor([[0, 1], [1, 0]]))["loss"])


def test_labels_that_are_not_a_class_and_zero_images_are_an_error() -> None:
    for labels in (torch.tensor([0, 3]), torch.tensor([0, -1])):
        with pytest.raises(
            ValueError, match=r"a class from 0 to 2 for each of 2 images, got values from -?\d to \d of"
        ):
            classification_metrics(torch.zeros(2, 3), labels)
    with pytest.raises(ValueError, match=r"for each of 2 images, .* of shape \(3,\)"):
        classification_metrics(torch.zeros(2, 3), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"at least one image, got logits of shape \(0, 3\)"):
        classification_metrics(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"at least one image, got logits of shape \(0, 3\)"):
        multilabel_metrics(torch.zeros(0, 3), torch.zeros(0, 3))


def test_without_resamples_there_is_no_bootstrap() -> None:
    scores, targets = draw(20, 2)
    groups = [str(i % 10) for i in range(20)]
    assert classification_metrics(scores, targets[:, 0].long(), groups=groups, resamples=0)["top1_interval"] is None
    assert multilabel_metrics(scores, targets, groups=groups, resamples=0)["mean_auc_interval"] is None
    for metrics, labels in ((classification_metrics, targets[:, 0].long()), (multilabel_metrics, targets)):
        with pytest.raises(ValueError, match="resamples must be at least 1, got -1"):
            metrics(scores, labels, groups=groups, resamples=-1)
