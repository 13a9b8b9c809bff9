"""From the file to the network's input."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from stochnorm.data import Preprocessing

SMALL = Preprocessing(image_size=14, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def test_sizes_keep_the_papers_ratio() -> None:
    assert Preprocessing(224).resize == 256
    assert SMALL.resize == 16


def test_crops_and_normalization() -> None:
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 1, 16).expand(1, 3, 16, 16)
    assert SMALL.center_crop(images)[0, 0, 0].tolist() == list(range(1, 15))
    ten = SMALL.ten_crop(images)
    assert ten.shape == (1, 10, 3, 14, 14)
    assert [crop[0, 0, 0].item() for crop in ten[0]] == [0, 2, 0, 2, 1, 15, 13, 15, 13, 14]
    x = SMALL.normalize(torch.full((2, 3, 4, 4), 255, dtype=torch.uint8))
    assert torch.equal(x, torch.full((2, 3, 4, 4), 2.0))
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalization_is_the_formula_to_the_bit(channels_last: bool) -> None:
    preprocessing = Preprocessing()
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (preprocessing.mean, preprocessing.std))
    before = images.clone()
    x = preprocessing.normalize(images)
    assert torch.equal(x, (images - mean) / std)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_mean_and_deviation_are_copied_to_a_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(1, 3, 5, 7, dtype=torch.uint8)
    first = SMALL.normalize(images)
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("made again"))
    assert torch.equal(SMALL.normalize(images), first)


def test_what_another_mode_normalizes_is_not_kept_for_the_next_batch() -> None:
    preprocessing, images = Preprocessing(image_size=20), torch.zeros(2, 3, 20, 20, dtype=torch.uint8)
    with FakeTensorMode() as mode:
        assert isinstance(preprocessing.normalize(mode.from_tensor(images)), FakeTensor)
    with torch.inference_mode():
        preprocessing.normalize(images)
    normalized = preprocessing.normalize(images)
    assert type(normalized) is torch.Tensor
    assert not normalized.is_inference()
