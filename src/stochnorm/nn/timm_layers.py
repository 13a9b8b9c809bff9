"""Layers for timm's normalization with a built-in activation; imported only if a model has such a layer.

Each layer normalizes and then applies its own `drop` and `act`. The conversions make them.
"""

from __future__ import annotations

from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from stochnorm.nn.batch_instance import _BatchInstanceNorm
from stochnorm.nn.frozen import _FrozenNorm
from stochnorm.nn.stochastic import _StochNorm

__all__ = ["BatchInstanceNormAct2d", "FrozenNormAct2d", "StochNormAct2d"]


class StochNormAct2d(_StochNorm, BatchNormAct2d):
    """StochNorm with an activation: p is the probability of **batch** statistics, p = 1 is timm's BatchNormAct2d."""

    def _activation(self) -> nn.Module:
        if isinstance(self.drop, nn.Identity):
            return self.act
        return nn.Sequential(self.drop, self.act)


class BatchInstanceNormAct2d(_BatchInstanceNorm, BatchNormAct2d):
    """A learned mixture of batch and instance normalization with an activation; rho = 1 is timm's BatchNormAct2d."""

    def _mixed_forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.act(self.drop(super()._mixed_forward(input)))
        return output


class FrozenNormAct2d(_FrozenNorm, BatchNormAct2d):
    """timm's BatchNormAct2d with frozen statistics."""


LAYERS = (StochNormAct2d, BatchInstanceNormAct2d, FrozenNormAct2d)
