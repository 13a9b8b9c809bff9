"""Algorithm 1 of *Stochastic Normalization* (Kou et al., NeurIPS 2020) as a pure function."""

from __future__ import annotations

from itertools import compress
from typing import Any, overload

import torch
from torch import Tensor

__all__ = ["stoch_norm"]

_HALF = (torch.bfloat16, torch.float16)
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default


def stoch_norm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    use_batch: Tensor,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Normalize each channel by its batch or by its moving statistics (Algorithm 1, training).

    With :math:`s_c` = ``use_batch[c]``, and everything but :math:`x` and :math:`y` one number per channel:

    .. math::
        y = \gamma \left( s \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}
          + (1 - s) \frac{x - \tilde\mu}{\sqrt{\tilde\sigma^2 + \epsilon}} \right) + \beta

    The function changes none of its arguments and draws no random number. Output and gradients use the moving
    statistics as they were passed in; their update is returned. Gradients flow to ``input``, ``weight`` and ``bias``
    (not to the statistics) and are twice differentiable.

    The statistics take one pass over the input and the normalization another, as in batch normalization: the
    statistics are chosen per channel before anything of the input's size is computed.

    Args:
        input: The feature map x.
        running_mean: Moving mean, before this step.
        running_var: Moving variance, before this step.
        weight: Scale gamma; None is 1.
        bias: Shift beta; None is 0.
        use_batch: The drawn s: True where the channel is normalized by batch statistics.
        momentum: Weight alpha of the batch statistics in the updated moving statistics.
        eps: Added to both variances.

    Shape:
        - input: (b, c), (b, c, l), (b, c, h, w) or (b, c, d, h, w), any floating dtype and memory format.
        - running_mean, running_var, weight, bias: (c,); use_batch: (c,), bool.

    Returns:
        ``(output, running_mean, running_var)``: the output in the input's shape, dtype and memory format, and the
        updated moving statistics. The moving variance is updated with the unbiased batch variance, as in
        :class:`torch.nn.BatchNorm2d`, so that an all-True ``use_batch`` is batch normalization.

    Raises:
        ValueError: The input has fewer than two values per channel, or a per-channel tensor is not of shape (c,).
        TypeError: ``use_batch`` is not bool.

    Example:
        >>> x = torch.randn(8, 3, 4, 4)
        >>> mean, var = torch.zeros(3), torch.ones(3)
        >>> s = torch.tensor([True, False, True])
        >>> y, mean, var = stoch_norm(x, mean, var, use_batch=s)
        >>> torch.equal(y[:, 1], x[:, 1] / (1 + 1e-5) ** 0.5)
        True
    """
    channels = input.size(1) if input.dim() > 1 else 0
    if input.numel() < 2 * channels or channels == 0:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
    if use_batch.dtype is not torch.bool:
        raise TypeError(f"use_batch must be a bool tensor, one value per channel, got {use_batch.dtype}")
    if not channels == use_batch.numel() == running_mean.numel() == running_var.numel():
        raise ValueError(
            f"use_batch, running_mean and running_var must hold one value for each of the input's {channels} channels, "
            f"got {use_batch.numel()}, {running_mean.numel()} and {running_var.numel()}"
        )
    output, new_mean, new_var = _StochNormFunction.apply(
        input, running_mean, running_var, weight, bias, use_batch, momentum, eps
    )
    return output, new_mean, new_var


class _StochNormFunction(torch.autograd.Function):
    """A composition of ATen's batch-norm kernels, which exist on every device.

    Saved for backward: the input and vectors of length c, as for batch normalization. (No ``setup_context``: PyTorch
    binds its arguments by ``inspect.signature`` at each call, which costs as much as a small layer.)
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        use_batch: Tensor,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = torch.float32 if input.dtype in _HALF else input.dtype
        moving_mean, moving_var = _cast(running_mean, dtype), _cast(running_var, dtype)
        batch_mean, batch_var, new_mean, new_var = _update_statistics(input, moving_mean, moving_var, momentum)
        mean = torch.where(use_batch, batch_mean, moving_mean)
        var = torch.where(use_batch, batch_var, moving_var)
        output = _normalize(input, mean, var, _cast(weight, dtype), _cast(bias, dtype), eps)
        new_mean, new_var = _cast(new_mean, running_mean.dtype), _cast(new_var, running_var.dtype)

        ctx.mark_non_differentiable(new_mean, new_var)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(input, weight, bias, mean, var, use_batch)
        ctx.eps = eps
        return output, new_mean, new_var

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_output = grad_outputs[0]
        if grad_output is None:
            return (None,) * 8
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            grads = _twice_differentiable_backward(ctx, grad_output)
        else:
            grads = _backward(ctx, grad_output)
        grad_input, grad_weight, grad_bias = grads
        return grad_input, None, None, grad_weight, grad_bias, None, None, None


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    r"""One pass for the two sums, :math:`\sum g` and :math:`\sum g \hat x`, and one for the input's gradient.

    With m values per channel:  dx = gamma / sqrt(var + eps) * (g - s / m * (sum(g) + x_hat * sum(g * x_hat))).
    A moving channel (s = 0) keeps the first term alone: its statistics do not depend on the input.
    """
    input, weight, bias, mean, var, use_batch = ctx.saved_tensors
    eps = ctx.eps
    invstd = torch.rsqrt(var + eps)
    scale = invstd if weight is None else invstd * weight
    if input.dtype == mean.dtype:
        _, sum_gx, sum_g = _batch_norm_backward(
            grad_output, input, None, None, None, mean, invstd, True, eps, [False, True, True]
        )
        scaled_grad = None
    else:  # half precision: take scale * g from the kernel, since addcmul_ on mixed dtypes is 6-10x slower on CPUs
        scaled_grad, sum_gx, sum_g = _batch_norm_backward(
            grad_output, input, _cast(weight, mean.dtype), mean, var, None, None, False, eps, [True, True, True]
        )
    grad_weight = _cast(sum_gx, weight.dtype) if ctx.needs_input_grad[3] else None
    grad_bias = _cast(sum_g, bias.dtype) if ctx.needs_input_grad[4] else None
    if not ctx.needs_input_grad[0]:
        return None, grad_weight, grad_bias

    through_statistics = scale * use_batch * (-input.size(1) / input.numel())
    grad_input = _normalize(input, mean, var, through_statistics * sum_gx, through_statistics * sum_g, eps)
    if scaled_grad is None:
        grad_input.addcmul_(grad_output, scale.view(-1, *[1] * (input.dim() - 2)))
    else:
        grad_input += scaled_grad
    return grad_input, grad_weight, grad_bias


def _twice_differentiable_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient by autograd through the written formula, for ``create_graph=True``; several passes."""
    input, weight, bias, mean, var, use_batch = ctx.saved_tensors
    needed = [ctx.needs_input_grad[i] for i in (0, 3, 4)]
    reduced = [dim for dim in range(input.dim()) if dim != 1]
    per_channel = (-1, *[1] * (input.dim() - 2))
    x = _cast(input, mean.dtype)
    batch_var, batch_mean = torch.var_mean(x, reduced, correction=0)
    mean = torch.where(use_batch, batch_mean, mean).view(per_channel)
    var = torch.where(use_batch, batch_var, var).view(per_channel)
    output = (x - mean) * torch.rsqrt(var + ctx.eps)
    if weight is not None:
        output = output * weight.view(per_channel)
    if bias is not None:
        output = output + bias.view(per_channel)
    leaves = list(compress((input, weight, bias), needed))
    grads = iter(torch.autograd.grad(output.to(input.dtype), leaves, grad_output, create_graph=True))
    return tuple(next(grads) if need else None for need in needed)


@overload
def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor: ...
@overload
def _cast(tensor: None, dtype: torch.dtype) -> None: ...
def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)


def _update_statistics(
    input: Tensor, moving_mean: Tensor, moving_var: Tensor, momentum: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Batch mean and biased variance, and the updated moving mean and variance, in one pass over the input."""
    if torch.compiler.is_compiling():  # the kernel below has no decomposition; the compiler fuses this one
        reduced = [dim for dim in range(input.dim()) if dim != 1]
        var, mean = torch.var_mean(_cast(input, moving_mean.dtype), reduced, correction=0)
        m = input.numel() // input.size(1)
        return mean, var, moving_mean.lerp(mean, momentum), moving_var.lerp(var * (m / (m - 1)), momentum)
    new_mean, new_var = moving_mean.clone(), moving_var.clone()
    mean, var = torch.batch_norm_update_stats(input, new_mean, new_var, momentum)
    return mean, var, new_mean, new_var


def _normalize(
    input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """``weight * (input - mean) / sqrt(var + eps) + bias`` per channel, in one pass."""
    return torch.native_batch_norm(input, weight, bias, mean, var, False, 0.0, eps)[0]
