"""Algorithm 1 on GPUs, composed of the ATen kernels that synchronized batch normalization consists of.

CUDA's ``native_batch_norm_backward`` wants the statistics of a whole batch normalization and raises without them. These
kernels take a mean and an inverse deviation per channel, whichever statistics they come from. Each direction takes two
passes over the data, as batch normalization does, synchronizes nothing with the host, and can be captured in a CUDA
graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["backward", "dense", "normalize"]


def dense(input: Tensor) -> Tensor:
    """Return the input without gaps in memory: the kernels for channels_last do not look at strides."""
    return input.contiguous(memory_format=_format_of(input))


def normalize(
    input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Return ``weight * (input - mean) / sqrt(var + eps) + bias`` per channel, in one pass.

    Shape:
        - input: (b, c, ...), any floating dtype, :func:`dense`.
        - mean, var, weight, bias: (c,), in float32 for half precision.
        - Returns: the input's shape, dtype and memory format.
    """
    return torch.batch_norm_elemt(input, weight, bias, mean, torch.rsqrt(var + eps), eps)


def backward(
    grad_output: Tensor,
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    use_batch: Tensor,
    eps: float,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    r"""Return the gradients of input, weight and bias.

    One pass sums :math:`g` and :math:`g (x - \mu)`; the other one computes
    :math:`\gamma / \sqrt{\sigma^2 + \epsilon} \; (g - s / m \, (\sum g + \hat x \sum g \hat x))` with m values per
    channel. The two sums are multiplied by the mask s in between, because moving statistics do not depend on the input.

    Args:
        grad_output: Gradient of the output.
        input: As in the forward pass, :func:`dense`.
        mean, var: Statistics that each channel was normalized by.
        weight: Scale gamma; None is 1.
        use_batch, eps: As in the forward pass.
        needs: Whether the gradients of input, weight and bias are needed.
    """
    needs_input, needs_weight, needs_bias = needs
    weight = None if weight is None else weight.to(mean.dtype)
    grad_output = grad_output.contiguous(memory_format=_format_of(input))
    invstd = torch.rsqrt(var + eps)
    sum_g, sum_g_centered, grad_weight, grad_bias = torch.batch_norm_backward_reduce(
        grad_output, input, mean, invstd, weight, needs_input, needs_weight, needs_bias
    )
    grad_input = None
    if needs_input:
        mask = use_batch.to(mean.dtype)
        values = torch.full((1,), input.numel() // input.size(1), dtype=torch.int32, device=input.device)
        grad_input = torch.batch_norm_backward_elemt(
            grad_output, input, mean, invstd, weight, sum_g * mask, sum_g_centered * mask, values
        )
    return grad_input, grad_weight if needs_weight else None, grad_bias if needs_bias else None


def _format_of(input: Tensor) -> torch.memory_format:
    """Return the memory format of the input; the contiguous one for other strides."""
    if input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    if input.dim() == 5 and input.is_contiguous(memory_format=torch.channels_last_3d):
        return torch.channels_last_3d
    return torch.contiguous_format
