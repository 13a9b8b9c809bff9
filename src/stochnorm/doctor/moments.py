"""Statistics of the inputs of a normalization layer, compared with the inherited ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.doctor.statistics import LayerStatistics

__all__ = ["Moments", "check_finite", "compare"]


class Moments:
    """Mean and variance per channel of each batch at a layer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: list[int] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []

    def add(self, input: Tensor) -> None:
        """Add a batch (b, c, ...), on any device."""
        channels_last = input.detach().float().movedim(1, -1).reshape(-1, input.size(1))
        # One copy to the CPU, for which a GPU waits; float64 there, since not every device has it.
        variance, mean = torch.stack(torch.var_mean(channels_last, 0, correction=0)).cpu().double()
        check_finite(mean, variance, f"in batch {len(self.values) + 1}, the input of {self.name or 'the layer'} has")
        self.values.append(len(channels_last))
        self.means.append(mean)
        self.variances.append(variance)


def check_finite(mean: Any, variance: Any, what: str) -> None:
    """Raise ValueError if two tensors are not finite; `what` is the beginning of the message."""
    if not (mean.isfinite().all() and variance.isfinite().all()):
        raise ValueError(f"{what} NaN or infinity, which cannot be compared; check the weights and the images")


def compare(name: str, layer: _BatchNorm, moments: Moments) -> LayerStatistics:
    """Compare the batches at a layer with the statistics that it inherited."""
    running_mean, running_var = (torch.as_tensor(b).cpu().double() for b in (layer.running_mean, layer.running_var))
    sigma = (running_var + layer.eps).sqrt()
    means, variances = torch.stack(moments.means), torch.stack(moments.variances)
    share = torch.tensor(moments.values, dtype=torch.float64)[:, None] / sum(moments.values)
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean).square())).sum(0)

    shift = (mean - running_mean).abs() / sigma
    scale = ((variance + layer.eps) / (running_var + layer.eps)).log2().abs()
    noise = means.std(0) / (variance + layer.eps).sqrt()  # in units of the data, as BatchNorm sees it
    dead = running_var < layer.eps
    awake = dead & ((variance.sqrt() > 2 * sigma) | (shift > 1))
    low, middle, high = _quantiles(shift[~dead], (0.1, 0.5, 0.9))
    return LayerStatistics(
        name=name or type(layer).__name__,
        channels=layer.num_features,
        shift=middle,
        shift_low=low,
        shift_high=high,
        beyond=float((shift[~dead] > 1).double().mean()),
        scale=_quantiles(scale[~dead], (0.5,))[0],
        noise=_quantiles(noise[~dead], (0.5,))[0],
        dead=int(dead.sum()),
        awake=int(awake.sum()),
    )


def _quantiles(values: Tensor, shares: tuple[float, ...]) -> list[float]:
    if not len(values):
        return [math.nan] * len(shares)
    return [float(q) for q in values.quantile(torch.tensor(shares, dtype=values.dtype))]
