"""Image files in batches, read ahead of the model."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from stochnorm.data import Preprocessing
from stochnorm.data.images.batches import file_batches

SMALL = Preprocessing(image_size=14)


def test_two_batches_are_read_while_the_model_computes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(photos.rglob("*.png"))
    original, started, enough = Preprocessing.read, [], threading.Event()

    def read(self: Preprocessing, path: Path) -> torch.Tensor:
        started.append(path)
        if len(started) == 12:
            enough.set()
        return original(self, path)

    monkeypatch.setattr(Preprocessing, "read", read)
    batches = file_batches(files, SMALL, 4, strict=True)
    first = next(batches)
    assert first[0] == files[:4]
    assert enough.wait(60)  # while nobody asks for more
    assert len(started) == 12
    every = [first, *batches]
    assert [path for paths, _ in every for path in paths] == files
    assert torch.equal(
        torch.cat([images for _, images in every]), torch.stack([original(SMALL, path) for path in files])
    )


def test_unreadable_files_are_skipped_in_order(photos: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    for path in files[3], files[17]:
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match=r"skipped 2 of 30 images: .*blue/003.png.*green/007.png"):
        batches = list(file_batches(files, SMALL, 8, strict=False))
    assert [len(images) for _, images in batches] == [8, 8, 8, 4]
    assert [path for paths, _ in batches for path in paths] == [
        path for i, path in enumerate(files) if i not in (3, 17)
    ]
    with pytest.raises(ValueError, match=r"blue/003.png: cannot be read"):
        list(file_batches(files, SMALL, 8, strict=True))
