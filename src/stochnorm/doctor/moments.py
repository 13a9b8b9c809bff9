"""Statistics of what a normalization layer is given, against those it inherited."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.doctor.diagnosis import LayerStatistics

__all__ = ["Moments", "check_finite", "compare"]


class Moments:
    """Per-channel mean and variance of each batch that came by a layer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: list[int] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []

    def add(self, input: Tensor) -> None:
        channels_last = input.detach().float().movedim(1, -1).reshape(-1, input.size(1))
        variance, mean = torch.var_mean(channels_last, 0, correction=0)
        check_finite(mean, variance, f"in batch {len(self.values) + 1}, the input of {self.name or 'the layer'} holds")
        self.values.append(len(channels_last))
        self.means.append(mean.cpu().double())  # not every device has float64
        self.variances.append(variance.cpu().double())


def check_finite(mean: Any, variance: Any, what: str) -> None:
    """Raises ValueError with ``what`` holds NaN or infinity; for tensors."""
    if not (mean.isfinite().all() and variance.isfinite().all()):
        raise ValueError(f"{what} NaN or infinity, which compares with nothing; check the weights and the images")


def compare(name: str, layer: _BatchNorm, moments: Moments) -> LayerStatistics:
    """What came by a layer against what it inherited."""
    running_mean, running_var = (torch.as_tensor(b).cpu().double() for b in (layer.running_mean, layer.running_var))
    sigma = (running_var + layer.eps).sqrt()
    means, variances = torch.stack(moments.means), torch.stack(moments.variances)
    share = torch.tensor(moments.values, dtype=torch.float64)[:, None] / sum(moments.values)
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean).square())).sum(0)

    shift = (mean - running_mean).abs() / sigma
    scale = ((variance + layer.eps) / (running_var + layer.eps)).log2().abs()
    noise = means.std(0) / (variance + layer.eps).sqrt()  # as BatchNorm sees it, whatever was inherited
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
