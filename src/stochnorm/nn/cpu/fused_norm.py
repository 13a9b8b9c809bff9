"""The layers for timm's normalization with a built-in activation on CPUs; imported only if a model has such a layer.

`accelerate.py` makes them.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from stochnorm.nn.cpu import kernel
from stochnorm.nn.timm_layers import StochNormAct2d

__all__ = ["FusedBatchNormAct2d", "FusedStochNormAct2d"]


class FusedBatchNormAct2d(BatchNormAct2d):
    """timm's BatchNormAct2d with a compiled kernel that normalizes and activates in one pass in training."""

    _accelerates: type[BatchNormAct2d] = BatchNormAct2d

    def forward(self, x: Tensor) -> Tensor:
        vectors: Any = (self.running_mean, self.running_var, self.weight, self.bias)
        within = kernel.range_of(self.act)
        if (
            within is None
            or not isinstance(x, Tensor)  # but what torch.fx follows
            or not (self.training and self.track_running_stats and self.momentum is not None)
            or not isinstance(self.drop, nn.Identity)
            or x.dim() != 4
            or x.numel() < 2 * x.size(1)
            or not kernel.fits(x, *vectors)
        ):
            output: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return output
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        every = torch.ones(x.size(1), dtype=torch.bool, device=x.device)
        output, _ = kernel.stoch_norm_(
            x, *vectors, use_batch=every, momentum=self.momentum, eps=self.eps, output_range=within
        )
        return output


class FusedStochNormAct2d(StochNormAct2d, FusedBatchNormAct2d):
    """StochNorm with an activation that, at p = 1, is the layer above bit for bit."""

    _accelerates = StochNormAct2d
