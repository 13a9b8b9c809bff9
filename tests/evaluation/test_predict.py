"""Images of a prediction are read ahead of the model."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from stochnorm.data import Preprocessing
from stochnorm.evaluation.predict import _batches

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
    done: list[Path] = []
    batches = _batches(files, SMALL, 4, True, done)
    first = next(batches)
    assert done == files[:4]
    assert enough.wait(60)  # while nobody asks for more
    assert len(started) == 12
    rest = list(batches)
    assert done == files
    assert torch.equal(torch.cat([first, *rest]), torch.stack([original(SMALL, path) for path in files]))


def test_what_cannot_be_read_is_left_out_in_order(photos: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    for path in files[3], files[17]:
        path.write_bytes(b"")
    done: list[Path] = []
    with pytest.warns(UserWarning, match=r"left out 2 of 30 images: .*blue/003.png.*green/007.png"):
        sizes = [len(batch) for batch in _batches(files, SMALL, 8, False, done)]
    assert sizes == [8, 8, 8, 4]
    assert done == [path for i, path in enumerate(files) if i not in (3, 17)]
    with pytest.raises(ValueError, match=r"blue/003.png: cannot be read"):
        list(_batches(files, SMALL, 8, True, []))
