"""Launch the Triton kernels of Batch-Instance Normalization on one layer's tensors; imported only where Triton is."""

from __future__ import annotations

import torch
from torch import Tensor

from stochnorm.nn.cuda import instances_backward as backward
from stochnorm.nn.cuda import instances_forward as forward
from stochnorm.nn.cuda.place import COMBINING, REDUCING, Place

__all__ = ["apply", "gradient", "moments", "products"]

_COMBINED = 2048  # values that a program of `settle` and `finish` combines at once


def moments(
    input: Tensor,
    place: Place,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    rho: Tensor,
    training: bool,
    momentum: float | None,
    eps: float,
    batches: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return `instances` (4, b, c) and `batch` (2, c), as `settle` leaves them; update the moving statistics."""
    tiles, images = place.tiles, input.size(0)
    channels, programs = tiles.channels, tiles.programs
    shares = rho.new_empty(2 * images * programs * channels + programs)
    instances, batch = rho.new_empty(4, images, channels), rho.new_empty(2, channels)
    forward.moments[(tiles.blocks, programs, images)](
        input, shares, batches, images, tiles.outer, channels, tiles.inner, tiles.steps, *tiles.constants, **REDUCING
    )
    combined, width = _combining(images, channels)
    forward.settle[(-(-channels // width),)](
        shares,
        instances,
        batch,
        running_mean,
        running_var,
        weight,
        bias,
        rho,
        batches,
        momentum,
        eps,
        images,
        channels,
        programs,
        training,
        combined,
        width,
        **COMBINING,
    )
    return instances, batch


def apply(input: Tensor, place: Place, residual: Tensor | None, instances: Tensor, activation: int) -> Tensor:
    """Return `activation(normalized + residual)`."""
    tiles, images = place.tiles, input.size(0)
    output = torch.empty_like(input)
    forward.apply[(tiles.blocks * tiles.steps, images)](
        input,
        output,
        residual,
        instances,
        images,
        tiles.outer,
        tiles.channels,
        tiles.inner,
        activation,
        *tiles.constants,
        num_warps=tiles.warps,
    )
    return output


def products(
    grad: Tensor,
    input: Tensor,
    place: Place,
    residual: Tensor | None,
    behind: Tensor | None,
    instances: Tensor,
    batch: Tensor,
    weight: Tensor | None,
    rho: Tensor,
    training: bool,
    activation: int,
) -> tuple[Tensor, Tensor]:
    """Return gradients of weight, bias and rho (3, c), and the coefficients of `gradient` (2, b, c); fill `behind`."""
    tiles, images = place.pairs, input.size(0)
    channels, programs = tiles.channels, tiles.programs
    shares = batch.new_empty(2 * images * programs * channels)
    results, coefficients = batch.new_empty(3, channels), batch.new_empty(2, images, channels)
    backward.products[(tiles.blocks, programs, images)](
        grad,
        input,
        residual,
        behind,
        shares,
        instances,
        images,
        tiles.outer,
        channels,
        tiles.inner,
        tiles.steps,
        activation,
        *tiles.constants,
        **REDUCING,
    )
    combined, width = _combining(images, channels)
    backward.finish[(-(-channels // width),)](
        shares,
        results,
        coefficients,
        instances,
        batch,
        weight,
        rho,
        input.numel() // (images * channels),
        images,
        channels,
        programs,
        training,
        combined,
        width,
        **COMBINING,
    )
    return results, coefficients


def gradient(
    grad: Tensor,
    input: Tensor,
    place: Place,
    residual: Tensor | None,
    instances: Tensor,
    coefficients: Tensor,
    activation: int,
) -> Tensor:
    """Return the input's gradient."""
    tiles, images = place.tiles, input.size(0)
    grad_input = torch.empty_like(input)
    backward.gradient[(tiles.blocks * tiles.steps, images)](
        grad,
        input,
        residual,
        grad_input,
        instances,
        coefficients,
        images,
        tiles.outer,
        tiles.channels,
        tiles.inner,
        activation,
        *tiles.constants,
        num_warps=tiles.warps,
    )
    return grad_input


def _combining(images: int, channels: int) -> tuple[int, int]:
    """Return how many images, a power of two, and how many channels a program combines."""
    height = 1 << (images - 1).bit_length()
    return height, max(1, min(1 << (channels - 1).bit_length(), 32, _COMBINED // height))
