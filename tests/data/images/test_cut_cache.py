"""Another program cuts the cache's file while a run reads it: images are decoded, and nothing ends the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from stochnorm.data import ImageStore, Preprocessing, read_source

SMALL = Preprocessing(image_size=14)


@pytest.mark.parametrize("left", [0, 100, 4096, 4096 + 40, 20000])
@pytest.mark.parametrize("grown", [False, True])
def test_a_cut_file_gives_the_right_images(photos: Path, left: int, *, grown: bool) -> None:
    """With `grown` another run has written behind the cut, which leaves a hole of zeros."""
    source = read_source(photos)
    store = ImageStore(source.root, source.rows, SMALL, cache="disk", listed=[row.path for row in source.rows])
    assert store._cache is not None
    file = store._cache._path
    os.truncate(file, left)
    if grown:
        with file.open("r+b") as content:
            content.seek(22000)
            content.write(b"a later slot")
    for number, row in enumerate(source.rows):
        assert torch.equal(store[number], SMALL.read(source.root / row.path))
    again = ImageStore(source.root, source.rows, SMALL, cache="disk", listed=[row.path for row in source.rows])
    assert all(torch.equal(again[n], SMALL.read(source.root / row.path)) for n, row in enumerate(source.rows))
