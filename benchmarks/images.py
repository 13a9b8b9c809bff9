"""Images for benchmarks that need some: noise as rough as photographs are, the same on every machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms.v2.functional import to_pil_image


def photograph(generator: torch.Generator, width: int, height: int) -> Image.Image:
    """Noise of all scales, the coarse ones strong and the same in all colors, as photographs have it.

    As JPEG files of quality 90 they take about as many bytes a pixel as photographs of this size.
    """
    pixels, strength = torch.full((1, 3, 3, 4), 128.0), 32.0
    while True:
        h, w = pixels.shape[-2:]
        grey, color = (torch.randn(1, c, h, w, generator=generator) for c in (1, 3))
        pixels = pixels + strength * (0.9 * grey + 0.3 * color)
        if h >= height and w >= width:
            break
        pixels = F.interpolate(pixels, scale_factor=2, mode="bilinear")
        strength *= 0.76
    return to_pil_image(pixels[0, :, :height, :width].clamp(0, 255).to(torch.uint8))


def write_images(
    root: Path,
    count: int,
    classes: int,
    *,
    size: tuple[int, int] = (500, 375),
    distinct: int = 0,
    vary: float = 1.0,
    seed: int = 0,
) -> Path:
    """Write JPEG files, ``root/<class>/<number>.jpg``, as many in each class.

    Args:
        root: A folder; made.
        count: How many; rounded up to a multiple of ``classes``.
        classes: Folders.
        size: Width and height, pixels.
        distinct: Contents; the other files are further names of them, which takes no time. 0: all.
        vary: The least width and height, as a fraction of ``size``; drawn for each file.
        seed: Of the noise.

    Returns:
        The folder.
    """
    generator = torch.Generator().manual_seed(seed)
    per_class = -(-count // classes)
    written: list[Path] = []
    for label in range(classes):
        folder = root / f"class-{label:05d}"
        folder.mkdir(parents=True)
        for number in range(per_class):
            path = folder / f"{number:06d}.jpg"
            if distinct and len(written) >= distinct:
                os.link(written[(label + number) % distinct], path)
            else:
                scale = 1 - (1 - vary) * torch.rand(2, generator=generator).numpy() if vary < 1 else (1, 1)
                photograph(generator, round(size[0] * scale[0]), round(size[1] * scale[1])).save(path, quality=90)
                written.append(path)
    return root
