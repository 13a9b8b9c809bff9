"""Logits of images, by their center or ten crops, and the metrics that come with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stochnorm.data import ImageStore, Preprocessing, Row, Split
from stochnorm.evaluation.logits import evaluate_split, predict_logits
from stochnorm.evaluation.tasks import MultiLabel
from stochnorm.models import Classifier
from stochnorm.runs.hardware import launch


class Corner(nn.Module):
    """A network whose logits are the crop's first pixel and its mean."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 0, 0], x.mean((1, 2, 3))], dim=1)


def test_ten_crop_averages_the_logits_of_all_crops_of_an_image() -> None:
    preprocessing = Preprocessing(14, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    images = torch.randint(0, 255, (3, 3, 16, 16), dtype=torch.uint8)
    fabric = launch("cpu", "32")
    ten = predict_logits(Corner(), images.split(2), preprocessing, fabric, ten_crop=True)
    expected = torch.stack([Corner()(crops.float()) for crops in preprocessing.ten_crop(images)]).mean(1)
    torch.testing.assert_close(ten, expected)
    center = predict_logits(Corner(), images.split(2), preprocessing, fabric)
    torch.testing.assert_close(center, Corner()(preprocessing.center_crop(images).float()))


def test_evaluation_leaves_the_mode_as_it_was() -> None:
    model = Corner().train()
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    predict_logits(model, [images], Preprocessing(14), launch("cpu", "32"))
    assert model.training


def test_ten_crops_share_one_batch() -> None:
    sizes = []

    class Sizes(Corner):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().forward(x)

    images = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    predict_logits(Sizes(), [images[:2], images[2:]], Preprocessing(14), launch("cpu", "32"), ten_crop=True)
    assert sizes == [20, 10]


def photo_split(photos: Path, preprocessing: Preprocessing, targets: Any, group: str = "") -> Split:
    """Three photographs: blue, green, red."""
    rows = [Row(f"{color}/000.png", color, "test", group) for color in ("blue", "green", "red")]
    return Split(ImageStore(photos, rows, preprocessing), [0, 1, 2], targets)


def classifier_of(preprocessing: Preprocessing, multi_label: bool = False) -> Classifier:
    return Classifier(Corner(), [], "corner", "random", ("x", "y"), preprocessing, multi_label=multi_label)


def test_evaluation_of_one_label_an_image(photos: Path) -> None:
    preprocessing = Preprocessing(14)
    split = photo_split(photos, preprocessing, torch.tensor([0, 1, 0]))
    logits, metrics = evaluate_split(classifier_of(preprocessing), split, launch("cpu", "32"), batch_size=2)
    assert logits.shape == (3, 2)
    assert metrics["top1"] == pytest.approx(100 * float((logits.argmax(1) == split.targets).float().mean()))


def test_evaluation_of_several_labels_an_image(photos: Path) -> None:
    preprocessing = Preprocessing(14)
    split = photo_split(photos, preprocessing, torch.tensor([[1.0, 0], [0, 0], [1, 0]]))
    classifier, fabric = classifier_of(preprocessing, multi_label=True), launch("cpu", "32")
    logits, metrics = evaluate_split(classifier, split, fabric, batch_size=2)
    assert metrics == MultiLabel(("x", "y")).metrics(logits, split.targets)
    assert metrics["per_class"][1] is None
    weighted = evaluate_split(
        classifier, split, fabric, batch_size=2, task=MultiLabel(("x", "y"), torch.tensor([9.0, 1]))
    )
    assert weighted[1]["loss"] != metrics["loss"]


def test_the_groups_of_a_split_reach_its_interval(photos: Path) -> None:
    preprocessing = Preprocessing(14)
    classifier, fabric = classifier_of(preprocessing), launch("cpu", "32")
    one_patient = photo_split(photos, preprocessing, torch.tensor([0, 1, 0]), group="p1")
    metrics = evaluate_split(classifier, one_patient, fabric, batch_size=2)[1]
    assert metrics["top1_interval"] == pytest.approx([metrics["top1"]] * 2)  # one group: nothing to resample
    ungrouped = photo_split(photos, preprocessing, torch.tensor([0, 1, 0]))
    low, high = evaluate_split(classifier, ungrouped, fabric, batch_size=2)[1]["top1_interval"]
    assert low < high
