"""The layers that gpu_layer.py compares, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blend import HostMask, TwoBranchBlend
from stochnorm import nn as stoch
from stochnorm.nn.cuda import composition

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
        use_batch = torch.rand(self.num_features, device=input.device) < 0.5
        moving_mean, moving_var = self.running_mean.clone(), self.running_var.clone()
        batch_mean, batch_var = torch.batch_norm_update_stats(
            input.detach(), self.running_mean, self.running_var, self.momentum
        )
        mean, var = torch.where(use_batch, batch_mean, moving_mean), torch.where(use_batch, batch_var, moving_var)
        output: Tensor = _Composition.apply(input, mean, var, self.weight, self.bias, use_batch, self.eps)
        return output


class _Composition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(input, mean, var, weight, mask)
        ctx.eps = eps
        if input.is_cuda:
            return composition.normalize(input, mean, var, weight, bias, eps)
        return torch.native_batch_norm(input, weight, bias, mean, var, False, 0.0, eps)[0]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, mean, var, weight, mask = ctx.saved_tensors
        if input.is_cuda:
            found = composition.backward(grad_output, input, mean, var, weight, mask, ctx.eps, [True, True, True])
        else:  # for tests: the pieces exist on GPUs alone
            found = torch.ops.aten.native_batch_norm_backward(
                grad_output, input, weight, mean, var, mean, (var + ctx.eps).rsqrt(), False, ctx.eps, [True, True, True]
            )
        return found[0], None, None, found[1], found[2], None, None


def _with_relu(layer: nn.Module, *, fused: bool) -> nn.Module:
    pair = nn.Sequential(layer, nn.ReLU(inplace=True))
    if fused:
        getattr(stoch, "fuse", lambda m: 0)(pair)
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
