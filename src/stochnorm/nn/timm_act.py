"""StochNorm for timm's normalization that carries its activation; imported only where a model has such a layer."""

from __future__ import annotations

from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor

from stochnorm.nn.layer import _StochNorm

__all__ = ["StochNormAct2d"]


class StochNormAct2d(_StochNorm, BatchNormAct2d):
    """p is the probability that a channel is normalized by **batch** statistics; p = 1 is timm's BatchNormAct2d.

    Normalization, then the layer's own ``drop`` and ``act``. Made by :func:`stochnorm.convert`.
    """

    def _stochastic_forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.act(self.drop(super()._stochastic_forward(input)))
        return output
