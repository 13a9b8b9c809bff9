"""Small data sets in their official formats, and helpers for their tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm.data import Source

Write = Callable[[str, Path], Path]


@pytest.fixture
def cub(tmp_path: Path, write_official: Write) -> Path:
    return write_official("cub", tmp_path / "cub")


@pytest.fixture
def cars(tmp_path: Path, write_official: Write) -> Path:
    return write_official("cars", tmp_path / "cars")


@pytest.fixture
def aircraft(tmp_path: Path, write_official: Write) -> Path:
    return write_official("aircraft", tmp_path / "aircraft")


@pytest.fixture
def nih(tmp_path: Path, write_official: Write) -> Path:
    return write_official("chestxray14", tmp_path / "nih")


@pytest.fixture
def splits() -> Callable[[Source], dict[str, int]]:
    """Counts the images of each split of a source."""
    return lambda source: dict(Counter(row.split for row in source.rows))
