"""Stochastic Normalization as a written formula, which autograd can differentiate twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["formula", "twice_differentiable_backward"]


def formula(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    use_batch: Tensor | None,
    eps: float,
) -> Tensor:
    """Return the normalized input, through its batch statistics where `use_batch` is True; None is nowhere.

    Shape:
        - input: (b, c, ...); mean, var: (c,), used where `use_batch` is False; weight, bias, use_batch: (c,).
        - Returns: the input's shape, in the dtype of the mean.
    """
    per_channel = (-1, *[1] * (input.dim() - 2))
    if use_batch is not None:
        reduced = [dim for dim in range(input.dim()) if dim != 1]
        batch_var, batch_mean = torch.var_mean(input.to(mean.dtype), reduced, correction=0)
        mean, var = torch.where(use_batch, batch_mean, mean), torch.where(use_batch, batch_var, var)
    output = (input - mean.view(per_channel)) * torch.rsqrt(var.view(per_channel) + eps)
    output = output if weight is None else output * weight.view(per_channel)
    return output if bias is None else output + bias.view(per_channel)


def twice_differentiable_backward(
    grad_output: Tensor,
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    use_batch: Tensor | None,
    eps: float,
    needs: Sequence[bool],
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients by autograd through the written formula, for `create_graph=True`; takes several passes.

    Args:
        grad_output: Gradient of the output.
        input: As in the forward pass.
        mean: Mean that each channel was normalized by.
        var: Variance that each channel was normalized by.
        weight: Scale gamma; None is 1.
        use_batch: True where the channel was normalized by batch statistics; None is nowhere.
        eps: As in the forward pass.
        needs: Whether the gradients of input, weight, bias and residual are needed; the last may be left out.
        bias: Shift beta, which the derivative of an activation depends on.
        residual: Added to the normalized input.
        activation: Applied last.

    Returns:
        The gradients that `needs` lists; None if not needed.
    """
    reduced = [dim for dim in range(input.dim()) if dim != 1]
    with torch.enable_grad():
        before = formula(input, mean, var, weight, bias, use_batch, eps)
        before = before if residual is None else before + residual
        output = (before if activation is None else activation(before)).to(input.dtype)
    create_graph = torch.is_grad_enabled()
    if activation is not None:
        (grad_output,) = torch.autograd.grad(output, before, grad_output, create_graph=create_graph, retain_graph=True)
        output = before
    leaves = [leaf for leaf, needed in zip((input, weight), needs, strict=False) if needed and leaf is not None]
    grads = iter(torch.autograd.grad(output, leaves, grad_output, create_graph=create_graph) if leaves else ())
    grad_input = next(grads) if needs[0] else None
    grad_weight = next(grads) if needs[1] else None
    grad_bias = grad_output.sum(reduced, dtype=mean.dtype) if needs[2] else None
    return (grad_input, grad_weight, grad_bias, *[grad_output.to(input.dtype) if need else None for need in needs[3:]])
