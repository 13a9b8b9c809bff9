"""Metrics against values computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stochnorm.data import Preprocessing
from stochnorm.evaluate import classification_metrics, predict_logits
from stochnorm.hardware import launch


def test_metrics_by_hand() -> None:
    logits = torch.tensor([[2.0, 0, 0, 0], [2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    metrics = classification_metrics(logits, torch.tensor([0, 0, 0, 1]))
    assert metrics["images"] == 4
    assert metrics["top1"] == 50
    assert metrics["per_class"] == [pytest.approx(200 / 3), 0, None, None]
    assert metrics["mean_per_class"] == pytest.approx(100 / 3)  # over the two classes that have images
    # Wilson's interval for 2 of 4 (Wilson 1927): (p + z^2/2n -+ z sqrt(p q / n + z^2 / 4 n^2)) / (1 + z^2 / n)
    assert metrics["top1_interval"] == pytest.approx([15.0036, 84.9964], abs=1e-3)
    assert metrics["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, torch.tensor([0, 0, 0, 1]))))


class Corner(nn.Module):
    """Logits that say what the crop's first pixel is, and the crop's mean."""

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
