"""Logits of images, by their center or ten crops, and the metrics that come with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stochnorm.data import ImageStore, Preprocessing, Row, Split, read_source
from stochnorm.evaluation import logits as module
from stochnorm.evaluation.logits import evaluate_split, images_at_once, predict_logits
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


def sizes_of(model: nn.Module) -> list[int]:
    """Collect the sizes of the batches that a model sees."""
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


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


def test_batches_grow_where_there_is_memory(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU; here with a CPU that has endless memory."""
    monkeypatch.setattr(module, "_grows", lambda _: True)
    classifier, fabric = classifier_of(Preprocessing(14)), launch("cpu", "32")
    source = read_source(photos)
    split = Split(ImageStore(source.root, source.rows, Preprocessing(14)), list(range(30)), torch.arange(30) % 2)
    sizes = sizes_of(classifier.model)
    logits, _ = evaluate_split(classifier, split, fabric, batch_size=4)
    assert sizes == [4, 26]
    monkeypatch.setattr(module, "_MOST_CROPS", 120)
    ten, _ = evaluate_split(classifier, split, fabric, batch_size=45, ten_crop=True)
    assert sizes[2:] == [40, 120, 120, 20]
    monkeypatch.setattr(module, "_grows", lambda _: False)
    torch.testing.assert_close(logits, evaluate_split(classifier, split, fabric, batch_size=4)[0])
    torch.testing.assert_close(ten, evaluate_split(classifier, split, fabric, batch_size=4, ten_crop=True)[0])


def test_batches_that_do_not_fit_after_all_are_small_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Corner):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 8:
                raise torch.OutOfMemoryError("another process has taken the memory")
            return super().forward(x)

    source = read_source(photos)
    split = Split(ImageStore(source.root, source.rows, Preprocessing(14)), list(range(30)), torch.arange(30) % 2)
    classifier, fabric = classifier_of(Preprocessing(14)), launch("cpu", "32")
    expected, _ = evaluate_split(classifier, split, fabric, batch_size=8)
    monkeypatch.setattr(module, "_grows", lambda _: True)
    full = Classifier(Full().train(), [], "corner", "random", ("x", "y"), Preprocessing(14))
    assert torch.equal(evaluate_split(full, split, fabric, batch_size=8)[0], expected)
    assert full.model.training
    with pytest.raises(torch.OutOfMemoryError):
        evaluate_split(full, split, fabric, batch_size=9)


def test_batches_on_a_cpu_are_as_large_as_asked(photos: Path) -> None:
    classifier = classifier_of(Preprocessing(14))
    sizes = sizes_of(classifier.model)
    split = photo_split(photos, Preprocessing(14), torch.tensor([0, 1, 0]))
    evaluate_split(classifier, split, launch("cpu", "32"), batch_size=2)
    assert sizes == [2, 1]


def test_as_many_images_as_fit_into_half_of_the_memory() -> None:
    assert images_at_once(32, used=32 * 5e6, free=1e9, most=256) == 100
    assert images_at_once(32, used=32 * 5e6, free=100e9, most=256) == 256
    assert images_at_once(32, used=32 * 5e6, free=1e8, most=256) == 32  # it has run once
    assert images_at_once(300, used=300 * 5e6, free=100e9, most=256) == 300
    assert images_at_once(2, used=0, free=float("inf"), most=25) == 25


def test_a_device_has_the_logits_of_the_cpu(photos: Path, job_device: str) -> None:
    source = read_source(photos)
    split = Split(ImageStore(source.root, source.rows, Preprocessing(14)), list(range(30)), torch.arange(30) % 2)
    classifier = classifier_of(Preprocessing(14))
    expected = evaluate_split(classifier, split, launch("cpu", "32"), batch_size=4, ten_crop=True)
    fabric = launch(job_device, "32")
    logits, metrics = evaluate_split(classifier, split, fabric, batch_size=4, ten_crop=True)
    assert logits.device.type == "cpu"
    torch.testing.assert_close(logits, expected[0])
    assert metrics["top1"] == expected[1]["top1"]
    assert metrics["loss"] == pytest.approx(expected[1]["loss"], rel=1e-4)


@pytest.mark.parametrize("ten_crop", [False, True])
def test_logits_that_are_not_finite_are_an_error(photos: Path, ten_crop: bool, job_device: str) -> None:
    class Broken(Corner):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0

    classifier = Classifier(Broken(), [], "corner", "random", ("x", "y"), Preprocessing(14))
    split = photo_split(photos, Preprocessing(14), torch.tensor([0, 1, 0]))
    with pytest.raises(FloatingPointError, match="those of 3 of 3 images are not"):
        evaluate_split(classifier, split, launch(job_device, "32"), batch_size=2, ten_crop=ten_crop)


def test_the_groups_of_a_split_reach_its_interval(photos: Path) -> None:
    preprocessing = Preprocessing(14)
    classifier, fabric = classifier_of(preprocessing), launch("cpu", "32")
    one_patient = photo_split(photos, preprocessing, torch.tensor([0, 1, 0]), group="p1")
    metrics = evaluate_split(classifier, one_patient, fabric, batch_size=2)[1]
    assert metrics["top1_interval"] == pytest.approx([metrics["top1"]] * 2)  # one group: nothing to resample
    ungrouped = photo_split(photos, preprocessing, torch.tensor([0, 1, 0]))
    low, high = evaluate_split(classifier, ungrouped, fabric, batch_size=2)[1]["top1_interval"]
    assert low < high
