"""Whole images of a split on a device, in order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from stochnorm.data.images.batches import Split
from stochnorm.data.images.preprocessing import stack
from stochnorm.data.images.resident import resident
from stochnorm.data.images.stream import send

__all__ = ["WholeImages"]


class WholeImages:
    """The images of a split on a device, uint8, channels_last.

    Args:
        split: The images.
        device: Where they go.
        workers: Number of processes that read images to send.
        place: `resident`: taken from the images that live on the device; `streamed`: sent; `auto`: as they fit on a
            CUDA device, and streamed to others.
    """

    def __init__(
        self,
        split: Split,
        device: torch.device,
        *,
        workers: int = 0,
        place: Literal["auto", "resident", "streamed"] = "auto",
    ) -> None:
        self._split, self._device, self._workers = split, device, workers
        asked = place == "resident" or (place == "auto" and device.type == "cuda")
        self._there = resident(split.store, split.indices, device) if asked else None

    def batches(self, size: int, *, start: int = 0, count: float = math.inf) -> Iterator[Tensor]:
        """Yield batches of images in order, (b, 3, resize, resize).

        Args:
            size: Images per batch.
            start: Index of the first image.
            count: Maximum number of batches.
        """
        stop = int(min(start + count * size, len(self._split)))
        if self._there is None:
            part = self._split.part(start, stop)
            for batch in part.evaluation_batches(size, workers=self._workers, device=self._device):
                yield send(batch, self._device)
        else:
            images, slots = self._there
            for first in range(start, stop, size):
                yield images.index_select(0, slots[first : min(first + size, stop)]).movedim(-1, 1)

    def take(self, indices: Sequence[int]) -> Tensor:
        """Return images by their indices in the split, (b, 3, resize, resize)."""
        if self._there is None:
            return send(stack([self._split.store[self._split.indices[i]] for i in indices]), self._device)
        images, slots = self._there
        return images.index_select(0, slots[torch.tensor(indices, device=self._device)]).movedim(-1, 1)
