"""What the network sees in evaluation, against torchvision's transforms of the same file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from stochnorm.data import Preprocessing
from stochnorm.data.images.preprocessing import stack

SIZES = ((37, 61), (64, 48), (50, 50), (301, 17), (33, 200), (1, 90), (75, 75))
"""Width and height of the images."""


def write(path: Path, size: tuple[int, int], mode: str = "RGB") -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_resizing_cropping_and_normalization_are_torchvisions(tmp_path: Path, fit: Any, interpolation: str) -> None:
    ours = Preprocessing(56, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), interpolation, fit)
    side = ours.resize
    theirs = v2.Compose(
        [
            v2.Resize((side, side) if fit == "squash" else side, InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(side),
            v2.CenterCrop(ours.input_size),
            v2.PILToTensor(),
        ]
    )
    normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(ours.mean, ours.std)])
    for number, size in enumerate(SIZES):
        if fit == "crop" and size[0] != size[1]:
            continue  # its middle is exact; torchvision's is rounded to pixels of the resized image
        for mode in ("RGB", "L"):
            path = write(tmp_path / f"{number}-{mode}.png", size, mode)
            found = ours.center_crop(stack([ours.read(path)]))
            expected = theirs(Image.open(path).convert("RGB"))
            assert torch.equal(found[0], expected), (size, mode)
            torch.testing.assert_close(ours.normalize(found)[0], normalize(expected))


def test_ten_crops_are_torchvisions(tmp_path: Path) -> None:
    ours = Preprocessing(56)
    for size in (56, 40):  # another size in evaluation
        some = replace(ours, test_size=size)
        image = some.read(write(tmp_path / "image.png", (70, 90)))
        expected = torch.stack(v2.TenCrop(size)(image))
        assert torch.equal(some.ten_crop(stack([image]))[0], expected)
