"""A cache for each test, and the images that were decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stochnorm.data import Preprocessing
from stochnorm.files import cache_directory


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_directory("images")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that were decoded, by folder and name."""
    names: list[str] = []
    original = Preprocessing.read

    def read(self: Preprocessing, path: Path) -> torch.Tensor:
        names.append(f"{path.parent.name}/{path.name}")
        return original(self, path)

    monkeypatch.setattr(Preprocessing, "read", read)
    return names
