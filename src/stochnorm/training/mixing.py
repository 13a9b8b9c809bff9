"""Mixup and CutMix: pairs of images become one, and the loss is that of both labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from stochnorm.data.splits import derive_seed

__all__ = ["Mixing", "draw_mixture"]


def draw_mixture(mixup: float, cutmix: float, size: int, seed: int, step: int) -> tuple[float, ...]:
    """Draw how a step mixes its images: by mixup or CutMix, one of them at random if both are wanted.

    Mixup (Zhang et al., ICLR 2018): the whole image has the weight $\\lambda \\sim Beta(\\alpha, \\alpha)$. CutMix (Yun
    et al., ICCV 2019): a rectangle of the other image, with the aspect of the image and $1 - \\lambda$ of its area
    around a uniform center, clipped at the border, replaces that of the image.

    Args:
        mixup: $\\alpha$ of mixup; 0 for none.
        cutmix: $\\alpha$ of CutMix; 0 for none.
        size: Side of the images, pixels.
        seed: Random seed of the run.
        step: Number of the step.

    Returns:
        Weight of the image inside a rectangle, top, bottom, left and right of the rectangle, in pixels, and the share
        of the image, which is the weight of its label. Outside of the rectangle the image is as it was.

    Example:
        >>> weight, top, bottom, left, right, share = draw_mixture(0.2, 0, size=224, seed=0, step=7)
        >>> (top, bottom, left, right), weight == share
        ((0.0, 224.0, 0.0, 224.0), True)
    """
    draws = np.random.default_rng(derive_seed("mix", seed, step))
    cuts = cutmix > 0 and (mixup == 0 or draws.random() < 0.5)
    alpha = cutmix if cuts else mixup
    weight = float(draws.beta(alpha, alpha))
    if not cuts:
        return weight, 0.0, float(size), 0.0, float(size), weight
    half = size * (1 - weight) ** 0.5 / 2
    ends = [round(float(end)) for center in draws.uniform(0, size, 2) for end in (center - half, center + half)]
    top, bottom, left, right = (min(max(end, 0), size) for end in ends)
    share = 1 - (bottom - top) * (right - left) / size**2
    return 0.0, float(top), float(bottom), float(left), float(right), share


class Mixing:
    """Mix each image of a batch with the one before it, as a step wants it.

    The host draws, and sets values of a tensor that keeps its place, so that a CUDA graph can hold the mixing.

    Args:
        mixup: As for `draw_mixture`.
        cutmix: As for `draw_mixture`.
        seed: Random seed of the run.
        device: Device of the images.
    """

    def __init__(self, mixup: float, cutmix: float, seed: int, device: torch.device) -> None:
        self._mixup, self._cutmix, self._seed = mixup, cutmix, seed
        self._values = torch.ones(6, device=device)

    def prepare(self, step: int, size: int) -> None:
        """Draw the mixture of a step, for images of a side."""
        drawn = draw_mixture(self._mixup, self._cutmix, size, self._seed, step)
        for place, value in zip(self._values.unbind(), drawn, strict=True):
            place.fill_(value)  # the value is an argument of the kernel: nothing waits

    def images(self, images: Tensor) -> Tensor:
        """Return the mixed images, (b, 3, s, s) as they were given."""
        weight, top, bottom, left, right, _ = self._values.unbind()
        pixels = torch.arange(images.size(-1), device=images.device)
        rows, columns = (pixels >= top) & (pixels < bottom), (pixels >= left) & (pixels < right)
        inside = rows[:, None] & columns
        return torch.lerp(images.roll(1, 0), images, 1 - inside * (1 - weight))  # a product: no value from the host

    def value(self, of: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
        """Return the mean of a function of the targets over both images, weighted by their shares."""
        share = self._values[5]
        return share * of(targets) + (1 - share) * of(targets.roll(1, 0))
