"""Layers for timm's normalization with a built-in activation; imported only if a model has such a layer.

Each layer normalizes and then applies its own `drop` and `act`. The conversions make them.
"""

from __future__ import annotations

from typing import Any

from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from stochnorm.nn.batch_instance import _BatchInstanceNorm
from stochnorm.nn.frozen import _FrozenNorm
from stochnorm.nn.fusion.one_pass import in_one_pass
from stochnorm.nn.stochastic import _StochNorm

__all__ = ["BatchInstanceNormAct2d", "FrozenNormAct2d", "StochNormAct2d"]


class StochNormAct2d(_StochNorm, BatchNormAct2d):
    """StochNorm with an activation: p is the probability of **batch** statistics, p = 1 is timm's BatchNormAct2d."""

    def forward(self, input: Tensor) -> Tensor:
        output = in_one_pass(self, input)
        return super().forward(input) if output is None else output

    def _activation(self) -> nn.Module:
        return _own_activation(self)


class BatchInstanceNormAct2d(_BatchInstanceNorm, BatchNormAct2d):
    """A learned mixture of batch and instance normalization with an activation; rho = 1 is timm's BatchNormAct2d."""

    def _activation(self) -> nn.Module:
        return _own_activation(self)


class FrozenNormAct2d(_FrozenNorm, BatchNormAct2d):
    """timm's BatchNormAct2d with frozen statistics."""

    def forward(self, x: Tensor) -> Tensor:
        output = in_one_pass(self, x)
        return super().forward(x) if output is None else output


def _own_activation(layer: Any) -> nn.Module:
    """Return what a layer does behind its normalization, as one module."""
    activation: nn.Module = layer.act
    return activation if isinstance(layer.drop, nn.Identity) else nn.Sequential(layer.drop, activation)


LAYERS = (StochNormAct2d, BatchInstanceNormAct2d, FrozenNormAct2d)
