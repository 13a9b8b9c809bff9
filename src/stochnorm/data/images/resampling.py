"""Random crops of a batch, cut and scaled as one operation on any device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

__all__ = ["CropBatch", "filter_taps"]


class CropBatch:
    """Cut a crop out of each image of a batch and scale it to a square, bilinear with antialias.

    A crop is a matrix product along each side: each row of a matrix holds the weights of one output pixel, which are 0
    outside of the crop. The weights are PyTorch's for uint8 images, multiples of $2^{-14}$ or $2^{-15}$ that sum up to
    1. So all sums of a product are exact in float32, in any order, and the pixels are those of
    [stochnorm.data.images.augmentation.cut][], bit for bit. It takes an image that is at most four times as large as
    its output; beyond it, or where a device multiplies inexactly, a pixel may differ by 1 of 255.

    Nothing waits for the host, and no shape depends on the plan, so that a CUDA graph can hold the operation.

    By count, and not measured on a GPU: a batch of 48 from 256 to 224 pixels takes 7.9 GFLOP in float32 (0.2 ms at 40
    TFLOP/s) and moves 0.8 GB (0.2 ms at 4 TB/s), in 23 kernels. Its temporary memory is 0.12 GB, 2.4 MB an image.

    Args:
        side: Side of the images, pixels.
        size: Side of the output, pixels.
        device: Device of the images.
    """

    def __init__(self, side: int, size: int, device: torch.device) -> None:
        self.side, self.size = side, size
        taps, first = filter_taps(side, size)
        taps = torch.nn.functional.pad(taps, (1, 1))  # a pixel that no tap reaches takes the weight 0 from an end
        # The second half of the tables is for mirrored crops, which have their output pixels in the reverse order.
        self._taps = torch.cat([taps, taps.flip(1)]).to(device)
        self._first = torch.cat([first, first.flip(1)]).sub(1).to(device)
        self._pixels = torch.arange(side, device=device)

    def __call__(self, images: Tensor, plan: Tensor) -> Tensor:
        """Return the crops.

        Shape:
            images: (b, side, side, 3), uint8.
            plan: (b, 6), int32, as [stochnorm.data.images.plan.Plans][] has it; the first column is not used.
            returns: (b, size, size, 3), float32, contiguous; the values are whole numbers in [0, 255].
        """
        _, top, left, height, width, mirrored = plan.long().unbind(1)
        with _exact_products(images.device):
            across = self._weights(width + mirrored * (self.side + 1), left)
            rows = _product(across, images.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format))
            return _product(self._weights(height, top), rows.transpose(1, 2).contiguous())

    def _weights(self, kind: Tensor, offset: Tensor) -> Tensor:
        """Return the weights of each output pixel: (b, size, side), float32.

        Args:
            kind: Row of the tables for each image, (b,).
            offset: Where each crop begins, (b,).
        """
        taps = self._taps.index_select(0, kind)
        first = self._first.index_select(0, kind) + offset[:, None]
        which = (self._pixels - first[:, :, None]).clamp_(0, taps.size(2) - 1)
        return taps.gather(2, which)


def filter_taps(side: int, size: int) -> tuple[Tensor, Tensor]:
    """Compute the weights with which PyTorch scales one side of a uint8 image, bilinear with antialias.

    An output pixel takes a triangle of input pixels around its center, as wide as the scale demands (at least 2). The
    weights are computed in float64 and rounded to the finest power of 2 with which all of them fit into 15 bits.

    Args:
        side: Largest number of input pixels.
        size: Number of output pixels.

    Returns:
        Weights, float32 (side + 1, size, taps): the entry at $n$ is for $n$ input pixels. And the input pixel that the
        first weight belongs to, int64 (side + 1, size).

    Example:
        >>> weights, first = filter_taps(2, 1)
        >>> weights[2], first[2]
        (tensor([[0.5000, 0.5000, 0.0000, 0.0000, 0.0000]]), tensor([0]))
    """
    inputs = torch.arange(side + 1, dtype=torch.float64)[:, None]
    scale = inputs / size
    reach = scale.clamp(min=1)
    center = scale * (torch.arange(size, dtype=torch.float64) + 0.5)
    first = (center - reach + 0.5).trunc().clamp(min=0)
    end = torch.minimum((center + reach + 0.5).trunc(), inputs)
    place = first[..., None] + torch.arange(2 * math.ceil(max(side / size, 1)) + 1)
    weights = (1 - ((place - center[..., None] + 0.5) / reach[..., None]).abs()).clamp(min=0)
    weights *= place < end[..., None]
    weights /= weights.cumsum(2)[..., -1:].clamp(min=1e-300)
    largest = weights.amax((1, 2)).clamp(min=2.0**-8)
    bits = torch.floor(torch.log2((2.0**15 - 0.5) / largest)).clamp(max=22)
    unit = torch.exp2(bits)[:, None, None]
    return ((weights * unit + 0.5).floor() / unit).float(), first.long()


def _product(weights: Tensor, pixels: Tensor) -> Tensor:
    """Multiply (b, size, side) by pixels (b, side, n, 3), and round to whole numbers: (b, size, n, 3)."""
    values = torch.bmm(weights, pixels.flatten(2)).add_(0.5).floor_()
    return values.view(*values.shape[:2], *pixels.shape[2:])


@contextmanager
def _exact_products(device: torch.device) -> Iterator[None]:
    """Multiply matrices of float32 in float32: no autocast, and no TF32 where the process has allowed it."""
    if torch.amp.is_autocast_available(device.type):
        plain: AbstractContextManager[object] = torch.autocast(device.type, enabled=False)
    else:
        plain = nullcontext()
    with plain:
        if device.type != "cuda":
            yield
            return
        matmul = torch.backends.cuda.matmul
        precision, matmul.fp32_precision = matmul.fp32_precision, "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = precision
