"""Whole images on a device are those of the split, wherever they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from stochnorm.data import ImageStore, Preprocessing, Split, read_source
from stochnorm.data.images.whole import WholeImages

SMALL = Preprocessing(14)


@pytest.fixture
def split(photos: Path) -> Split:
    source = read_source(photos)
    return Split(ImageStore(source.root, source.rows, SMALL), [9, 4, 20, 0, 29, 11, 12], [0] * 7)


@pytest.mark.parametrize("place", ["resident", "streamed", "auto"])
def test_batches_are_the_images_in_order(
    split: Split, place: Literal["resident", "streamed", "auto"], job_device: str
) -> None:
    device = torch.device(job_device)
    images = WholeImages(split, device, place=place)
    expected = torch.stack([split.store[i] for i in split.indices])
    batches = [*images.batches(2, count=1), *images.batches(3, start=2)]
    assert [len(batch) for batch in batches] == [2, 3, 2]
    for batch in batches:
        assert batch.device.type == job_device
        assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.cat(batches).cpu(), expected)
    assert list(images.batches(3, start=7)) == []
    chosen = images.take([5, 0, 5])
    assert chosen.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(chosen.cpu(), expected[[5, 0, 5]])
