"""Random training crops: drawn for a whole batch, then cut from one uint8 image at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Crop", "cut", "draw_crops"]

_AREA = (0.08, 1.0)  # fraction of the image
_RATIO = (3 / 4, 4 / 3)  # width to height
_ATTEMPTS = 10


class Crop(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool


def draw_crops(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Draw random crops of square images, half of them mirrored, as torchvision's `RandomResizedCrop` does.

    The area is uniform in 8 to 100 % of the image, the ratio log-uniform in 3/4 to 4/3. They are drawn up to ten times
    until the crop fits into the image; otherwise the crop is the whole image. The place is uniform.

    Args:
        count: Number of crops.
        side: Side of the images, pixels.
        generator: Generator of the draws, on the CPU.

    Returns:
        (count, 5), int64, on the CPU: top, left, height, width, and 1 for a mirrored crop, else 0.

    Example:
        >>> top, left, height, width, mirrored = draw_crops(2, 256, torch.Generator().manual_seed(0)).unbind(1)
        >>> bool((top + height <= 256).all())
        True
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    areas = (uniform(count, _ATTEMPTS) * (_AREA[1] - _AREA[0]) + _AREA[0]) * side**2
    logs = [math.log(ratio) for ratio in _RATIO]
    ratios = (uniform(count, _ATTEMPTS) * (logs[1] - logs[0]) + logs[0]).exp()
    sizes = torch.stack([areas / ratios, areas * ratios], dim=-1).sqrt().round()  # height, width
    fits = ((sizes >= 1) & (sizes <= side)).all(-1)
    first = fits.to(torch.uint8).argmax(1)
    sizes = torch.where(fits.any(1)[:, None], sizes[torch.arange(count), first], float(side))
    places = (uniform(count, 2) * (side - sizes + 1)).floor()
    mirrored = uniform(count, 1) < 0.5
    return torch.cat([places, sizes, mirrored], dim=1).long()


def cut(image: Tensor, crop: Crop, size: int) -> Tensor:
    """Cut a crop out of an image and scale it to a square, bilinear with antialias.

    Shape:
        image: (3, h, w), uint8; fastest with channels last in memory.
        returns: (3, size, size), uint8.
    """
    top, left, height, width, mirrored = crop
    # A batch of one with channels_last strides, which PyTorch's fast kernel for uint8 needs.
    batch = image.movedim(0, -1)[None, top : top + height, left : left + width].permute(0, 3, 1, 2)
    scaled = F.interpolate(batch, (size, size), mode="bilinear", antialias=True)
    return (scaled.flip(-1) if mirrored else scaled)[0]
