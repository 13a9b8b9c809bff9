"""Center crops are what the network sees in evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stochnorm.data import ImageStore, Preprocessing, Split, read_source
from stochnorm.data.images.center import CenterCrops

SMALL = Preprocessing(image_size=14, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture
def split(photos: Path) -> Split:
    source = read_source(photos)
    store = ImageStore(source.root, source.rows, SMALL)
    return Split(store, list(range(5, 30)), [0] * 5 + [1] * 10 + [2] * 10)


def test_center_crops_are_what_the_network_sees_in_evaluation(split: Split, job_device: str) -> None:
    crops = CenterCrops(split, [3, 0, 7], SMALL, 2, torch.device(job_device))
    for _ in range(2):
        ((inputs, targets),) = crops  # the last image alone has no batch statistics
        expected = torch.stack([split.store[split.indices[i]] for i in (3, 0)])
        assert torch.equal(inputs.cpu(), SMALL.normalize(SMALL.center_crop(expected)))
        assert torch.equal(targets.cpu(), split.targets[[3, 0]])
        assert inputs.device.type == targets.device.type == job_device
    *images, every_target = crops.content()
    assert all(torch.equal(image, split.store[split.indices[i]]) for image, i in zip(images, (3, 0, 7), strict=True))
    assert torch.equal(every_target, split.targets[[3, 0, 7]])


def test_center_crops_are_made_on_the_device(split: Split) -> None:
    meta = torch.device("meta")
    ((inputs, targets),) = CenterCrops(split, range(4), SMALL, 4, meta)
    assert inputs.shape == (4, 3, 14, 14)
    assert inputs.device == targets.device == meta
