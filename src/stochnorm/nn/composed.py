"""Algorithm 1 composed of plain operations, which every transform of PyTorch can differentiate and batch."""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from stochnorm.nn.double_backward import formula

__all__ = ["is_transformed", "stoch_norm_"]


def is_transformed() -> bool:
    """Return whether a transform of `torch.func` or forward-mode differentiation is active."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def stoch_norm_(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    use_batch: Tensor,
    momentum: float | Tensor,
    eps: float,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Compute `stochnorm.nn.functional.stoch_norm_` through the formula, without residual and activation."""
    dtype = torch.float32 if input.dtype in (torch.bfloat16, torch.float16) else input.dtype
    moving_mean, moving_var = running_mean.to(dtype, copy=True), running_var.to(dtype, copy=True)
    output = formula(input, moving_mean, moving_var, weight, bias, use_batch, eps).to(input.dtype)
    values = input.numel() // input.size(1)
    reduced = [dim for dim in range(input.dim()) if dim != 1]
    var, mean = torch.var_mean(input.detach().to(dtype), reduced, correction=0)
    running_mean.copy_(momentum * mean + (1 - momentum) * running_mean)
    running_var.copy_(momentum * (var * (values / (values - 1))) + (1 - momentum) * running_var)
    return output, (torch.where(use_batch, mean, moving_mean), torch.where(use_batch, var, moving_var), mean)
