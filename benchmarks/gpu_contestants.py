"""The layers that gpu_layer.py compares, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blend import HostMask, TwoBranchBlend
from stochnorm import nn as stoch
from stochnorm.nn import aten

BASE = "BatchNorm"
BASE_RELU = "BatchNorm + ReLU"
OURS = "StochNorm"
OURS_RELU = "StochNorm + ReLU"
LIMIT = "limit"


class Contestant(NamedTuple):
    """A layer, and what it is compared with."""

    make: Callable[[int], nn.Module]
    """Function from the number of channels to the layer."""
    base: str = BASE
    graph: bool = True
    """Whether a CUDA graph can hold it."""
    eager: bool = True
    """Whether it is timed in a Python loop, too."""


class Pieces(nn.BatchNorm2d):
    """StochNorm from ATen's pieces of synchronized BatchNorm: what runs where Triton does not."""

    def forward(self, input: Tensor) -> Tensor:
        output, _ = aten.stoch_norm_(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            use_batch=torch.rand(self.num_features, device=input.device) < 0.5,
            momentum=self.momentum,
            eps=self.eps,
        )
        return output


def _with_relu(layer: nn.Module, *, fused: bool) -> nn.Module:
    pair = nn.Sequential(layer, nn.ReLU(inplace=True))
    if fused:
        stoch.fuse(pair)
    return pair


def _frozen(channels: int) -> nn.Module:
    return stoch.freeze(nn.Sequential(nn.BatchNorm2d(channels)))[0]


CONTESTANTS: dict[str, Contestant] = {
    BASE: Contestant(nn.BatchNorm2d),
    OURS: Contestant(stoch.StochNorm2d),
    "pieces": Contestant(Pieces),
    "blend": Contestant(TwoBranchBlend),
    "host mask": Contestant(HostMask, graph=False),
    BASE_RELU: Contestant(lambda c: _with_relu(nn.BatchNorm2d(c), fused=False)),
    OURS_RELU: Contestant(lambda c: _with_relu(stoch.StochNorm2d(c), fused=True), base=BASE_RELU),
    "fused BatchNorm + ReLU": Contestant(
        lambda c: _with_relu(nn.BatchNorm2d(c), fused=True), base=BASE_RELU, eager=False
    ),
    "fused frozen + ReLU": Contestant(lambda c: _with_relu(_frozen(c), fused=True), base=BASE_RELU, eager=False),
    "fused BIN + ReLU": Contestant(
        lambda c: _with_relu(stoch.BatchInstanceNorm2d(c), fused=True), base=BASE_RELU, eager=False
    ),
}
"""By name; each one's base comes before it. *limit* is no layer: see gpu_layer.py."""
