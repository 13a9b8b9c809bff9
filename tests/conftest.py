"""Shared fixtures: the development data beside the checkout, and small generated image sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """Golden vectors and real images; tests that need them skip where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("the development data are not beside this checkout")
    return SHARED


@pytest.fixture
def write_images() -> Callable[..., list[Path]]:
    """Writes ``count`` noisy images of one color into a folder."""

    def write(
        folder: Path, count: int, color: tuple[int, int, int] = (200, 40, 40), suffix: str = ".png"
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for i in range(count):
            noise = torch.randint(-30, 31, (24, 24, 3), generator=torch.Generator().manual_seed(hash(color) % 1000 + i))
            pixels = (torch.tensor(color) + noise).clamp(0, 255).to(torch.uint8)
            paths.append(folder / f"{i:03d}{suffix}")
            Image.fromarray(pixels.numpy()).save(paths[-1])
        return paths

    return write


@pytest.fixture
def photos(tmp_path: Path, write_images: Callable[..., list[Path]]) -> Path:
    """A folder per class: 3 colors with 10 images each."""
    root = tmp_path / "photos"
    for name, color in (("blue", (40, 40, 200)), ("green", (40, 160, 40)), ("red", (200, 40, 40))):
        write_images(root / name, 10, color)
    return root
