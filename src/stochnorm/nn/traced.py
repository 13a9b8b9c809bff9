"""Algorithm 1 for `torch.compile`: plain operations in the form that the compiler fuses best.

The compiler makes as many passes over the data of this as of batch normalization. On CPUs a mask of bool would make it
twice as slow for channels_last, so `stochnorm.nn.probability` draws numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["stoch_norm_"]


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
    """Compute `stochnorm.nn.functional.stoch_norm_` without residual and activation, which the compiler fuses.

    Args:
        use_batch: The mask, bool or a number per channel: positive where the channel uses batch statistics.
    """
    dtype = torch.float32 if input.dtype in (torch.bfloat16, torch.float16) else input.dtype
    values = input.numel() // input.size(1)
    batch_var, batch_mean = torch.var_mean(input.detach().to(dtype), _reduced(input), correction=0)
    mask = use_batch.to(dtype)
    mean = torch.where(mask > 0, batch_mean, running_mean.to(dtype))
    var = torch.where(mask > 0, batch_var, running_var.to(dtype))
    unbiased = batch_var * (values / (values - 1))
    running_mean.copy_(momentum * batch_mean + (1 - momentum) * running_mean)
    running_var.copy_(momentum * unbiased + (1 - momentum) * running_var)
    mean, invstd = _stored(mean), _stored(torch.rsqrt(var + eps))
    output: Tensor = _Normalize.apply(input, mean, invstd, weight, bias, mask)
    return output, (mean, var, batch_mean)


class _Normalize(torch.autograd.Function):
    """Normalize by given statistics; the gradient is that of Algorithm 1."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Tensor
    ) -> Tensor:
        ctx.save_for_backward(input, mean, invstd, weight, mask)
        ctx.bias_dtype = None if bias is None else bias.dtype
        output = (input - _channels(mean, input)) * _channels(invstd, input)
        output = output if weight is None else output * _channels(weight, input)
        output = output if bias is None else output + _channels(bias, input)
        return output.to(input.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, mean, invstd, weight, mask = ctx.saved_tensors
        reduced, share = _reduced(input), mask * (input.size(1) / input.numel())
        grad, centered = grad_output.to(mean.dtype), input - _channels(mean, input)
        sum_g, sum_g_centered = grad.sum(reduced), (grad * centered).sum(reduced)
        through_var = _stored(sum_g_centered * share * invstd * invstd)
        through_mean = _stored(sum_g * share)
        scale = _channels(invstd if weight is None else invstd * weight, input)
        grad_input = (grad - centered * _channels(through_var, input) - _channels(through_mean, input)) * scale
        return (
            grad_input.to(input.dtype),
            None,
            None,
            None if weight is None else (sum_g_centered * invstd).to(weight.dtype),
            None if ctx.bias_dtype is None else sum_g.to(ctx.bias_dtype),
            None,
        )


def _reduced(input: Tensor) -> list[int]:
    return [dim for dim in range(input.dim()) if dim != 1]


def _stored(vector: Tensor) -> Tensor:
    """Let the compiler store a vector, instead of computing it again for each value of the channel."""
    return vector.as_strided((vector.numel(),), (1,))


def _channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(-1, *[1] * (like.dim() - 2))
