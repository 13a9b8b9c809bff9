"""Random resized crops: their law, and their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from stochnorm.data.images.augmentation import Crop, cut, draw_crops


def draws(count: int, side: int, seed: int = 0) -> list[Crop]:
    drawn = draw_crops(count, side, torch.Generator().manual_seed(seed)).tolist()
    return [Crop(*box, bool(mirrored)) for *box, mirrored in drawn]


@pytest.mark.parametrize("side", [2, 16, 256])
def test_crops_lie_within_the_image(side: int) -> None:
    for top, left, height, width, _ in draws(2000, side):
        assert 0 <= top <= top + height <= side
        assert 0 <= left <= left + width <= side
        assert height > 0
        assert width > 0


def test_area_ratio_and_mirroring_are_within_their_bounds() -> None:
    top, left, height, width, mirrored = np.array(draws(4000, 1024), dtype=float).T
    area, ratio = height * width / 1024**2, width / height
    assert area.min() > 0.08 - 0.003  # whole pixels
    assert area.min() < 0.1
    assert area.max() > 0.9
    assert ratio.min() > 3 / 4 - 0.004
    assert ratio.max() < 4 / 3 + 0.007
    assert abs(np.log(ratio)).max() > 0.28
    assert abs(mirrored.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(mirrored, left)[0, 1]) < 0.05
    down, right = top / (1025 - height), left / (1025 - width)  # shares of the room there is
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.05


def test_the_law_is_that_of_torchvision() -> None:
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(224, scale=(0.08, 1.0), antialias=True)
    image = torch.zeros(3, 256, 256)
    params = [theirs.make_params([image]) for _ in range(3000)]
    ours = draws(3000, 256)
    for name in ("top", "left", "height", "width"):
        assert ks_2samp([p[name] for p in params], [getattr(crop, name) for crop in ours]).pvalue > 0.01
    share = np.mean([p["height"] == p["width"] == 256 for p in params])
    assert abs(np.mean([crop.height == crop.width == 256 for crop in ours]) - share) < 0.01


def test_crops_depend_on_the_generator_alone() -> None:
    assert draws(8, 256) == draws(8, 256)
    assert draws(8, 256) != draws(8, 256, seed=1)
    state = torch.get_rng_state()
    draws(8, 256)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_are_those_of_torchvision(channels_last: bool) -> None:
    image = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).movedim(-1, 0)
    given = image if channels_last else image.contiguous()
    for crop in [*draws(20, 64), Crop(0, 0, 64, 64, False), Crop(3, 5, 56, 56, True)]:
        expected = v2.functional.resized_crop(image.contiguous(), *crop[:4], [56, 56], antialias=True)
        assert torch.equal(cut(given, crop, 56), expected.flip(-1) if crop.mirrored else expected)
