"""The preprocessing in the graph sees what the run saw, to a rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stochnorm.data import Preprocessing
from stochnorm.exporting.network import Squares


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(90, 61), (40, 120), (17, 17)])
def test_squares_are_those_of_the_run(tmp_path: Path, fit: Any, interpolation: str, size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    small.resize(size, Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    preprocessing = Preprocessing(32, interpolation=interpolation, fit=fit)
    wanted = preprocessing.center_crop(preprocessing.read(tmp_path / "a.png")).float()
    found = Squares(preprocessing)(torch.from_numpy(np.array(Image.open(tmp_path / "a.png")))[None])[0]
    assert found.shape == wanted.shape
    away = (found - wanted).abs()
    if fit == "squash":
        assert away.max() <= 2
    assert away.mean() < (1 if fit == "squash" else 10)  # crop and pad round to whole pixels in other places
