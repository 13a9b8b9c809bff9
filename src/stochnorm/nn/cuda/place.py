"""Where the tensors of one layer lie, in memory and among GPUs, as the launches of all kernels need it."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stochnorm.nn.cuda.tiling import Tiling, format_of, tiling

__all__ = ["COMBINING", "REDUCING", "Place", "current_gpu", "place_of"]

REDUCING, COMBINING = {"num_warps": 8}, {"num_warps": 4}
"""Warps of the kernels that reduce an input, and of those that combine their results."""


class Place(NamedTuple):
    """How a tensor lies in memory: its tiles, and the memory format that all tensors of the layer must have."""

    tiles: Tiling
    pairs: Tiling  # of the kernel that reduces two inputs
    memory_format: torch.memory_format

    def dense(self, tensor: Tensor) -> Tensor:
        """Return the tensor in this memory format; a copy if it is not."""
        return tensor.contiguous(memory_format=self.memory_format)


def place_of(input: Tensor, *, by_image: bool = False) -> Place:
    """Return how an input lies in memory, or will after `dense`.

    Args:
        input: The input.
        by_image: The tiles are those of one image; the images share the GPU's processors.
    """
    last, memory_format = format_of(input)
    shape, size, processors = input.shape, input.element_size(), _processors(input.get_device())
    if by_image:
        shape, processors = torch.Size((1, *shape[1:])), max(1, processors // shape[0])
    return Place(
        tiling(shape, last, size, processors), tiling(shape, last, size, processors, pairs=True), memory_format
    )


@functools.cache
def _processors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device >= 0 else 1


def current_gpu(input: Tensor) -> Any:
    """Return a context in which the input's GPU is the current one: Triton launches on that (autograd sees to it)."""
    index = input.get_device()
    return _nothing if index < 0 or index == torch.cuda.current_device() else torch.cuda.device(index)


_nothing = nullcontext()
