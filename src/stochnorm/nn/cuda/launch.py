"""Launch the Triton kernels on the tensors of one layer; imported only where Triton is."""

from __future__ import annotations

import torch
from torch import Tensor

from stochnorm.nn.cuda import backward, forward
from stochnorm.nn.cuda.place import COMBINING, REDUCING, Place

__all__ = ["apply", "gradient", "moments", "products"]

_COMBINED = ((8, 32), (64, 32), (512, 8))  # shares of channels that a program of `settle` and `finish` combines


def moments(
    input: Tensor,
    place: Place,
    statistics: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    use_batch: Tensor | None,
    momentum: float | None,
    batches: Tensor | None,
) -> None:
    """Fill `statistics` (3, c) with mean and variance to normalize by and the batch mean; update the moving ones."""
    tiles = place.tiles
    shares = statistics.new_empty(tiles.programs * (2 * tiles.channels + 1))
    forward.moments[(tiles.blocks, tiles.programs)](
        input, shares, batches, tiles.outer, tiles.channels, tiles.inner, tiles.steps, *tiles.constants, **REDUCING
    )
    programs, channels = next(each for each in _COMBINED if each[0] >= tiles.programs)
    forward.settle[(-(-tiles.channels // channels),)](
        shares,
        statistics,
        running_mean,
        running_var,
        use_batch,
        batches,
        momentum,
        tiles.channels,
        tiles.programs,
        programs,
        channels,
        **COMBINING,
    )


def apply(
    input: Tensor,
    place: Place,
    mean: Tensor,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None,
    activation: int,
) -> Tensor:
    """Return `activation(normalized + residual)`; a variance of None follows the mean in memory."""
    tiles = place.tiles
    output = torch.empty_like(input)
    forward.apply[(tiles.blocks * tiles.steps,)](
        input,
        output,
        residual,
        mean,
        var,
        weight,
        bias,
        eps,
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
    beside: Tensor | None,
    behind: Tensor | None,
    grad_input: Tensor | None,
    mean: Tensor,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    use_batch: Tensor | None,
    activation: int,
    source: str,
) -> Tensor:
    """Return gradients of weight and bias and the coefficients of `gradient`, (4, c)."""
    tiles = place.pairs
    results = mean.new_empty(4, tiles.channels)
    shares = mean.new_empty(2 * tiles.programs * tiles.channels)
    backward.products[(tiles.blocks, tiles.programs)](
        grad,
        input,
        beside,
        behind,
        grad_input,
        shares,
        mean,
        var,
        weight,
        bias,
        eps,
        tiles.outer,
        tiles.channels,
        tiles.inner,
        tiles.steps,
        activation,
        source,
        *tiles.constants,
        **REDUCING,
    )
    programs, channels = next(each for each in _COMBINED if each[0] >= tiles.programs)
    backward.finish[(-(-tiles.channels // channels),)](
        shares,
        results,
        mean,
        var,
        use_batch,
        eps,
        input.numel() // tiles.channels,
        tiles.channels,
        tiles.programs,
        programs,
        channels,
        **COMBINING,
    )
    return results


def gradient(
    grad: Tensor,
    input: Tensor,
    place: Place,
    beside: Tensor | None,
    behind: Tensor | None,
    grad_input: Tensor | None,
    results: Tensor | None,
    mean: Tensor,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: int,
    source: str,
) -> None:
    """Fill `behind` and `grad_input`; see the kernel."""
    tiles = place.tiles
    backward.gradient[(tiles.blocks * tiles.steps,)](
        grad,
        input,
        beside,
        behind,
        grad_input,
        results,
        mean,
        var,
        weight,
        bias,
        eps,
        tiles.outer,
        tiles.channels,
        tiles.inner,
        activation,
        source,
        *tiles.constants,
        num_warps=tiles.warps,
    )
