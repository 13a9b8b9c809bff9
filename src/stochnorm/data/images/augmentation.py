"""Random training crops: drawn for a whole batch, then cut from one uint8 image at a time, and changed further."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from stochnorm.data.splits import derive_seed

__all__ = ["Augmentation", "Crop", "cut", "draw_crops"]

_RATIO = (3 / 4, 4 / 3)  # width to height
_ATTEMPTS = 10


class Crop(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed, besides the mirror; the defaults are the paper's."""

    scale: float = 0.08
    """Smallest area of a crop, as a fraction of the image."""
    policy: Literal["", "trivial", "rand"] = ""
    """What happens to a crop then: nothing; TrivialAugment (Müller and Hutter, ICCV 2021) or RandAugment (Cubuk et al.,
    2020), as torchvision has them. Both compute on the CPU."""

    def apply(self, crops: Tensor, seed: int, step: int, positions: Sequence[int]) -> None:
        """Change crops, in place, as the policy says: a function of the seed, the step and their places in its batch.

        Args:
            crops: (b, 3, s, s), uint8, on the CPU.
            seed: Random seed of the run.
            step: Number of the step.
            positions: Place of each crop in the step's batch, over all processes.
        """
        if not self.policy:
            return
        transform = v2.TrivialAugmentWide() if self.policy == "trivial" else v2.RandAugment()
        with torch.random.fork_rng(devices=()):  # torchvision draws from the global generator
            for place, position in enumerate(positions):
                torch.default_generator.manual_seed(derive_seed("policy", seed, step, position))
                crops[place] = transform(crops[place])


def draw_crops(
    count: int, side: int, generator: torch.Generator, *, scale: float = 0.08, contents: Tensor | None = None
) -> Tensor:
    """Draw random crops of square images, half of them mirrored, as torchvision's `RandomResizedCrop` does.

    The area is uniform in 8 to 100 % of the image, the ratio log-uniform in 3/4 to 4/3. They are drawn up to ten times
    until the crop fits into the image; otherwise the crop is the largest of a permitted ratio. The place is uniform.

    Args:
        count: Number of crops.
        side: Side of the images, pixels.
        generator: Generator of the draws, on the CPU.
        scale: Smallest area, as a fraction of the image.
        contents: Height and width of each image, in the middle of its square, (count, 2); None: it fills the square.

    Returns:
        (count, 5), int64, on the CPU: top, left, height, width, and 1 for a mirrored crop, else 0.

    Example:
        >>> top, left, height, width, mirrored = draw_crops(2, 256, torch.Generator().manual_seed(0)).unbind(1)
        >>> bool((top + height <= 256).all())
        True
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    image = torch.full((count, 2), float(side), dtype=torch.float64) if contents is None else contents.double()
    areas = (uniform(count, _ATTEMPTS) * (1.0 - scale) + scale) * image.prod(1, keepdim=True)
    logs = [math.log(ratio) for ratio in _RATIO]
    ratios = (uniform(count, _ATTEMPTS) * (logs[1] - logs[0]) + logs[0]).exp()
    sizes = torch.stack([areas / ratios, areas * ratios], dim=-1).sqrt().round()  # height, width
    fits = ((sizes >= 1) & (sizes <= image[:, None])).all(-1)
    first = fits.to(torch.uint8).argmax(1)
    largest = torch.minimum(image, (image.flip(1) * _RATIO[1]).round())
    sizes = torch.where(fits.any(1)[:, None], sizes[torch.arange(count), first], largest)
    places = (uniform(count, 2) * (image - sizes + 1)).floor() + ((side - image) / 2).floor()
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
