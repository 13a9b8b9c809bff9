"""Algorithm 1 on GPUs, composed of the ATen kernels of synchronized batch normalization.

CUDA's `native_batch_norm_backward` needs the statistics of a whole batch normalization and raises without them. The
kernels here take a mean and an inverse deviation per channel, from batch or moving statistics. Each direction takes two
passes over the data, as in batch normalization. Nothing waits for the GPU, so a CUDA graph can capture it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["backward", "dense", "memory_format_of", "normalize"]


def dense(input: Tensor) -> Tensor:
    """Return the input without gaps in memory: the kernels for channels_last ignore strides."""
    return input.contiguous(memory_format=memory_format_of(input))


def normalize(
    input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Return `weight * (input - mean) / sqrt(var + eps) + bias` per channel, in one pass.

    Shape:
        - input: (b, c, ...), any floating dtype, made `dense`.
        - mean, var, weight, bias: (c,), in float32 for half precision, else in the input's dtype.
        - Returns: the input's shape, dtype and memory format.
    """
    return torch.batch_norm_elemt(input, _plain(weight), _plain(bias), mean, torch.rsqrt(var + eps), eps)


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

    One pass sums $g$ and $g (x - \mu)$. The other pass computes
    $\gamma / \sqrt{\sigma^2 + \epsilon} \; (g - s / m \, (\sum g + \hat x \sum g \hat x))$ with m values per channel.
    Between the passes the two sums are multiplied by the mask s, because moving statistics do not depend on the input.

    Args:
        grad_output: Gradient of the output.
        input: As in the forward pass, made `dense`.
        mean: Mean that each channel was normalized by.
        var: Variance that each channel was normalized by.
        weight: Scale gamma; None is 1.
        use_batch: As in the forward pass.
        eps: As in the forward pass.
        needs: Whether the gradients of input, weight and bias are needed.
    """
    needs_input, needs_weight, needs_bias = needs
    weight = _plain(None if weight is None else weight.to(mean.dtype))
    grad_output = grad_output.contiguous(memory_format=memory_format_of(input))
    invstd = torch.rsqrt(var + eps)
    # The kernel computes no gradients of weight and bias without a weight, so they come from the two sums.
    sum_g, sum_g_centered, *_ = torch.batch_norm_backward_reduce(
        grad_output, input, mean, invstd, weight, True, False, False
    )
    grad_input = None
    if needs_input:
        mask = use_batch.to(mean.dtype)
        values = torch.full((1,), input.numel() // input.size(1), dtype=torch.int32, device=input.device)
        grad_input = torch.batch_norm_backward_elemt(
            grad_output, input, mean, invstd, weight, sum_g * mask, sum_g_centered * mask, values
        )
    return grad_input, sum_g_centered * invstd if needs_weight else None, sum_g if needs_bias else None


def _plain(vector: Tensor | None) -> Tensor | None:
    """Return a vector without gaps in memory: some of the kernels ignore strides."""
    return None if vector is None else vector.contiguous()


def memory_format_of(input: Tensor) -> torch.memory_format:
    """Return the memory format of the input; the contiguous one for other strides."""
    if input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    if input.dim() == 5 and input.is_contiguous(memory_format=torch.channels_last_3d):
        return torch.channels_last_3d
    return torch.contiguous_format
