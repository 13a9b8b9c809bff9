"""Compute the gradient of Stochastic Normalization so that autograd can differentiate it again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["twice_differentiable_backward"]


def twice_differentiable_backward(
    grad_output: Tensor,
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    use_batch: Tensor,
    eps: float,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients by autograd through the written formula, for `create_graph=True`; takes several passes.

    Args:
        grad_output: Gradient of the output.
        input: As in the forward pass.
        mean: Mean that each channel was normalized by.
        var: Variance that each channel was normalized by.
        weight: Scale gamma; None is 1.
        use_batch: True where the channel was normalized by batch statistics.
        eps: As in the forward pass.
        needs: Whether the gradients of input, weight and bias are needed.

    Returns:
        The gradients of input, weight and bias; None if not needed.
    """
    dtype = mean.dtype
    reduced = [dim for dim in range(input.dim()) if dim != 1]
    per_channel = (-1, *[1] * (input.dim() - 2))
    with torch.enable_grad():
        batch_var, batch_mean = torch.var_mean(input.to(dtype), reduced, correction=0)
        mean = torch.where(use_batch, batch_mean, mean).view(per_channel)
        var = torch.where(use_batch, batch_var, var).view(per_channel)
        output = (input - mean) * torch.rsqrt(var + eps)
        if weight is not None:
            output = output * weight.view(per_channel)
        output = output.to(input.dtype)
    leaves = [leaf for leaf, needed in zip((input, weight), needs, strict=False) if needed and leaf is not None]
    create_graph = torch.is_grad_enabled()
    grads = iter(torch.autograd.grad(output, leaves, grad_output, create_graph=create_graph) if leaves else ())
    grad_input = next(grads) if needs[0] else None
    grad_weight = next(grads) if needs[1] else None
    grad_bias = grad_output.sum(reduced, dtype=dtype) if needs[2] else None
    return grad_input, grad_weight, grad_bias
