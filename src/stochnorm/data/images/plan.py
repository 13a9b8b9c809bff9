"""Plans of training batches: which images a step takes, and which crops of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stochnorm.data.images.augmentation import draw_crops
from stochnorm.data.splits import generator

__all__ = ["Plans"]


class Plans(Dataset[Tensor]):
    """The plan of each training step, by the number of the step; a function of the seed and that number alone.

    A plan is (b, 6), int32, on the CPU. Its columns: index of the image in the split, then top, left, height and width
    of its crop in pixels, then 1 if the crop is mirrored, else 0. Each epoch is a new permutation of the images without
    its last incomplete batch.

    Args:
        images: Number of images.
        batch_size: Images per step, over all processes.
        side: Side of the square images, pixels.
        seed: Random seed of order and crops.
        share: Part of each batch that this process gets.
        scale: Smallest area of a crop, as a fraction of the image.
        contents: Height and width of each image inside its border, (images, 2); None: no image has one.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        side: int,
        seed: int,
        share: slice,
        *,
        scale: float = 0.08,
        contents: Tensor | None = None,
    ) -> None:
        self.scale, self.contents = scale, contents
        self.images, self.batch_size, self.side, self.seed, self.share = images, batch_size, side, seed, share
        self._order = (-1, torch.empty(0))  # the epoch, and its permutation

    def __getitem__(self, step: int) -> Tensor:
        epoch, position = divmod(step, self.images // self.batch_size)
        if self._order[0] != epoch:
            self._order = epoch, torch.randperm(self.images, generator=generator("order", self.seed, epoch))
        chosen = self._order[1][position * self.batch_size :][: self.batch_size]
        # Every process draws the crops of the whole batch, so that the batch does not depend on their number.
        contents = None if self.contents is None else self.contents[chosen]
        draws = generator("augment", self.seed, step)
        crops = draw_crops(self.batch_size, self.side, draws, scale=self.scale, contents=contents)
        return torch.cat([chosen[:, None], crops], dim=1).to(torch.int32)[self.share].contiguous()
