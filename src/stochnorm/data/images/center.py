"""Center crops of a split's images, as the network sees them in evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from stochnorm.data.images.batches import Split
from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.data.images.stream import send
from stochnorm.data.images.whole import WholeImages

__all__ = ["CenterCrops"]


class CenterCrops:
    """Batches of normalized center crops with their targets, as the network sees them in evaluation.

    They can be iterated any number of times.

    Args:
        split: The labelled images.
        indices: Images of the split to use, in order.
        preprocessing: Crop and normalization.
        batch_size: Images per batch. A last batch of one image is left out: it has no batch statistics.
        device: Device of the crops and targets.
    """

    def __init__(
        self,
        split: Split,
        indices: Iterable[int],
        preprocessing: Preprocessing,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.split, self.indices, self.preprocessing = split, list(indices), preprocessing
        self.batch_size, self.device = batch_size, device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        whole = WholeImages(self.split, self.device)
        for start in range(0, len(self.indices), self.batch_size):
            chosen = self.indices[start : start + self.batch_size]
            if len(chosen) > 1:
                crops = self.preprocessing.center_crop(whole.take(chosen))
                yield self.preprocessing.normalize(crops), send(self.split.targets[chosen], self.device)

    def content(self) -> Iterator[Tensor]:
        """Yield every image, then the targets: all that the batches depend on."""
        for i in self.indices:
            yield self.split.store[self.split.indices[i]]
        yield self.split.targets[self.indices]
