"""Algorithm 1 composed of ATen's kernels: the reference, and what runs where no kernel of our own does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from stochnorm.nn.cuda import composition
from stochnorm.nn.double_backward import twice_differentiable_backward

__all__ = ["affine", "batch_norm_backward", "on_gpu", "stoch_norm_"]

batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default
"""The backward pass of batch normalization as ATen computes it; with these arguments, on CPUs only."""


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
    """Compute `stochnorm.nn.functional.stoch_norm_` without activation and residual, for all devices and dtypes."""
    if on_gpu(input):
        input = composition.dense(input)
    dtype = torch.float32 if input.dtype in (torch.bfloat16, torch.float16) else input.dtype
    moving_mean, moving_var = _cast(running_mean.clone(), dtype), _cast(running_var.clone(), dtype)
    batch_mean, batch_var = _batch_statistics_(input, running_mean, running_var, momentum, dtype)
    mean = torch.where(use_batch, batch_mean, moving_mean)
    var = torch.where(use_batch, batch_var, moving_var)
    normalized: Tensor = _Normalize.apply(input, mean, var, weight, bias, use_batch, eps)
    return normalized, (mean, var, batch_mean)


def _batch_statistics_(
    input: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float | Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return batch mean and biased variance, without gradient; update the moving statistics in place. One pass."""
    input = input.detach()
    if isinstance(momentum, Tensor):
        momentum = momentum.to(running_mean.dtype)
    elif input.device.type in ("cpu", "cuda") and running_mean.dtype == dtype:
        return torch.batch_norm_update_stats(input, running_mean, running_var, momentum)
    reduced = [dim for dim in range(input.dim()) if dim != 1]
    var, mean = torch.var_mean(_cast(input, dtype), reduced, correction=0)
    m = input.numel() // input.size(1)
    running_mean.lerp_(_cast(mean, running_mean.dtype), momentum)
    running_var.lerp_(_cast(var * (m / (m - 1)), running_var.dtype), momentum)
    return mean, var


class _Normalize(torch.autograd.Function):
    """A composition of ATen's batch-norm kernels.

    It saves the input and vectors of length c for backward, as batch normalization does. It has no `setup_context`,
    because PyTorch would then call `inspect.signature` at each step, which costs as much as a small layer.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        use_batch: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(input, mean, var, weight, use_batch)
        ctx.eps = eps
        ctx.bias_dtype = None if bias is None else bias.dtype
        return affine(input, mean, var, _cast(weight, mean.dtype), _cast(bias, mean.dtype), eps)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, mean, var, weight, use_batch = ctx.saved_tensors
        needs = [ctx.needs_input_grad[i] for i in (0, 3, 4)]
        backward = _backward_of(input, grad_output)
        grad_input, grad_weight, grad_bias = backward(grad_output, input, mean, var, weight, use_batch, ctx.eps, needs)
        if weight is not None:
            grad_weight = _cast(grad_weight, weight.dtype)
        return grad_input, None, None, grad_weight, _cast(grad_bias, ctx.bias_dtype), None, None


def _backward_of(input: Tensor, grad_output: Tensor) -> Callable[..., tuple[Tensor | None, ...]]:
    """Return the function that computes the gradients: it depends on the device and on double backward."""
    batched = not torch._C._has_storage(grad_output)  # a batch of gradients under vmap
    if torch.is_grad_enabled() or batched or input.device.type not in ("cpu", "cuda"):
        return twice_differentiable_backward
    return composition.backward if on_gpu(input) else _backward


def _backward(
    grad_output: Tensor,
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    use_batch: Tensor,
    eps: float,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    r"""Return the gradients: one pass for the sums $\sum g$ and $\sum g \hat x$, one for the input's gradient.

    With m values per channel,
    $dx = \gamma / \sqrt{\sigma^2 + \epsilon} \; (g - s / m \, (\sum g + \hat x \sum g \hat x))$.
    A channel with moving statistics (s = 0) has only the first term: its statistics do not depend on the input.
    """
    weight = _cast(weight, mean.dtype)
    invstd = torch.rsqrt(var + eps)
    scaled_grad = None
    if input.dtype == mean.dtype:
        _, sum_gx, sum_g = batch_norm_backward(
            grad_output, input, None, None, None, mean, invstd, True, eps, [False, True, True]
        )
    else:  # half precision: take scale * g from the kernel, since addcmul_ on mixed dtypes is 6-10x slower on CPUs
        scaled_grad, sum_gx, sum_g = batch_norm_backward(
            grad_output, input, weight, mean, var, None, None, False, eps, [True, True, True]
        )
    grad_input = None
    if needs[0]:
        scale = invstd if weight is None else invstd * weight
        through_statistics = scale * use_batch * (-input.size(1) / input.numel())
        grad_input = affine(input, mean, var, through_statistics * sum_gx, through_statistics * sum_g, eps)
        if scaled_grad is None:
            grad_input.addcmul_(grad_output, scale.view(-1, *[1] * (input.dim() - 2)))
        else:
            grad_input += scaled_grad
    return grad_input, sum_gx if needs[1] else None, sum_g if needs[2] else None


@overload
def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor: ...
@overload
def _cast(tensor: None, dtype: torch.dtype) -> None: ...
@overload
def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None: ...
def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)


def affine(input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return `weight * (input - mean) / sqrt(var + eps) + bias` per channel, in one pass."""
    if on_gpu(input):
        return composition.normalize(input, mean, var, weight, bias, eps)
    return torch.native_batch_norm(input, weight, bias, mean, var, False, 0.0, eps)[0]


def on_gpu(input: Tensor) -> bool:
    """Return whether PyTorch's kernels for CUDA take the input, which have other signatures than those for CPUs."""
    return input.is_cuda
