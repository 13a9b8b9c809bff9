"""Algorithm 1 of *Stochastic Normalization* (Kou et al., NeurIPS 2020) as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stochnorm.nn.cpu import kernel
from stochnorm.nn.cuda import check, composition, fused
from stochnorm.nn.double_backward import twice_differentiable_backward

__all__ = ["stoch_norm"]

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

    With $s_c$ = `use_batch[c]`; all symbols except $x$ and $y$ have one value per channel:

    $$
    y = \gamma \left( s \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}
      + (1 - s) \frac{x - \tilde\mu}{\sqrt{\tilde\sigma^2 + \epsilon}} \right) + \beta
    $$

    The function changes none of its arguments and draws no random number. Output and gradients use the moving
    statistics that were passed in; the updated ones are returned. Gradients flow to `input`, `weight` and `bias` (not
    to the statistics) and are twice differentiable.

    One pass over the input computes the statistics and one pass normalizes, as in batch normalization: the statistics
    are chosen per channel before the normalization.

    Args:
        input: The feature map x.
        running_mean: Moving mean, before this step.
        running_var: Moving variance, before this step.
        weight: Scale gamma; None is 1.
        bias: Shift beta; None is 0.
        use_batch: The mask s: True where the channel is normalized by batch statistics.
        momentum: Weight alpha of the batch statistics in the updated moving statistics.
        eps: Constant added to both variances.

    Shape:
        - input: (b, c), (b, c, l), (b, c, h, w) or (b, c, d, h, w), any floating dtype and memory format.
        - running_mean, running_var, weight, bias: (c,); use_batch: (c,), bool.

    Returns:
        `(output, running_mean, running_var)`: the output in the input's shape, dtype and memory format, and the updated
        moving statistics. The moving variance is updated with the unbiased batch variance, as in
        `torch.nn.BatchNorm2d`, so an all-True `use_batch` is batch normalization.

    Raises:
        ValueError: The input has fewer than two values per channel, or a per-channel tensor is not of shape (c,).
        TypeError: `use_batch` is not bool.

    Example:
        >>> x = torch.randn(8, 3, 4, 4)
        >>> mean, var = torch.zeros(3), torch.ones(3)
        >>> s = torch.tensor([True, False, True])
        >>> y, mean, var = stoch_norm(x, mean, var, use_batch=s)
        >>> torch.equal(y[:, 1], x[:, 1] / (1 + 1e-5) ** 0.5)
        True
    """
    check_values_per_channel(input)
    channels = input.size(1)
    if use_batch.dtype is not torch.bool:
        raise TypeError(f"use_batch must be a bool tensor, one value per channel, got {use_batch.dtype}")
    vectors = {"running_mean": running_mean, "running_var": running_var, "use_batch": use_batch}
    for name, tensor in (vectors | {"weight": weight, "bias": bias}).items():
        if tensor is not None and tensor.shape != (channels,):
            raise ValueError(f"{name} must be of shape ({channels},), a value per channel, got {tuple(tensor.shape)}")
    new_mean, new_var = running_mean.clone(), running_var.clone()
    output, *_ = stoch_norm_(input, new_mean, new_var, weight, bias, use_batch=use_batch, momentum=momentum, eps=eps)
    return output, new_mean, new_var


def check_values_per_channel(input: Tensor) -> None:
    """Raise ValueError, as batch normalization does, if a channel has fewer than two values."""
    if input.dim() < 2 or input.numel() < 2 * input.size(1):
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")


def stoch_norm_(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    use_batch: Tensor | None,
    momentum: float | None,
    eps: float,
    batches: Tensor | None = None,
    residual: Tensor | None = None,
    activation: nn.Module | None = None,
) -> tuple[Tensor, Iterable[Tensor]]:
    """Compute `activation(stoch_norm(input) + residual)`, with the statistics updated in place and without checks.

    Args:
        use_batch: The mask s; None is True everywhere, which is batch normalization.
        momentum: Weight of the batch statistics in the moving ones; None for the cumulative average of `batches`.
        batches: Number of batches that the moving statistics have seen, int64 (); counted up here.
        residual: Added to the normalized input, of its shape.
        activation: Module applied last; a kernel does both in the same pass if it can.

    Returns:
        `(output, (mean, var, batch_mean))`; mean and var are the statistics that each channel was normalized by.
    """
    if fused.fits(input, residual, running_mean, running_var, weight, bias):
        code = fused.code_of(activation)
        if check.passes(input, weight is not None, bias is not None, residual is not None, code or 0, frozen=False):
            output, statistics = fused.stoch_norm_(
                input,
                running_mean,
                running_var,
                weight,
                bias,
                use_batch=use_batch,
                momentum=momentum,
                eps=eps,
                batches=batches,
                residual=residual,
                activation=code or 0,
            )
            return output if code is not None else _behind(output, None, activation), statistics
    if batches is not None:
        batches.add_(1)
    if use_batch is None:
        use_batch = torch.ones(input.size(1), dtype=torch.bool, device=input.device)
    if momentum is None:
        momentum = 1.0 / float(cast(Tensor, batches))
    if kernel.fits(input, running_mean, running_var, weight, bias):
        within = kernel.range_of(activation) if residual is None else None
        output, statistics = kernel.stoch_norm_(
            input,
            running_mean,
            running_var,
            weight,
            bias,
            use_batch=use_batch,
            momentum=momentum,
            eps=eps,
            output_range=within or kernel.UNBOUNDED,
        )
        return output if within else _behind(output, residual, activation), statistics
    if _on_gpu(input) and not torch.compiler.is_compiling():
        input = composition.dense(input)
    dtype = torch.float32 if input.dtype in (torch.bfloat16, torch.float16) else input.dtype
    moving_mean, moving_var = _cast(running_mean.clone(), dtype), _cast(running_var.clone(), dtype)
    batch_mean, batch_var = _batch_statistics_(input, running_mean, running_var, momentum, dtype)
    mean = torch.where(use_batch, batch_mean, moving_mean)
    var = torch.where(use_batch, batch_var, moving_var)
    normalized: Tensor = _Normalize.apply(input, mean, var, weight, bias, use_batch, eps)
    return _behind(normalized, residual, activation), (mean, var, batch_mean)


def frozen_norm(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    residual: Tensor | None = None,
    activation: nn.Module | None = None,
) -> Tensor:
    """Compute `activation(batch_norm(input) + residual)` with given statistics, for frozen layers and inference.

    Gradients flow to input, weight, bias and residual.

    Args:
        input: The feature map.
        mean: Mean of each channel.
        var: Variance of each channel.
        weight: Scale gamma; None is 1.
        bias: Shift beta; None is 0.
        eps: Constant added to the variances.
        residual: Added to the normalized input, of its shape.
        activation: Module applied last; on a GPU, in the same pass if it is ReLU, ReLU6 or SiLU.

    Shape:
        - input: (b, c, ...); mean, var, weight, bias: (c,).
        - Returns: the input's shape, dtype and memory format.
    """
    if fused.fits(input, residual, mean, var, weight, bias):
        code = fused.code_of(activation)
        if check.passes(input, weight is not None, bias is not None, residual is not None, code or 0, frozen=True):
            output = fused.frozen_norm(input, mean, var, weight, bias, eps=eps, residual=residual, activation=code or 0)
            return output if code is not None else _behind(output, None, activation)
    return _behind(F.batch_norm(input, mean, var, weight, bias, False, 0.0, eps), residual, activation)


def _behind(normalized: Tensor, residual: Tensor | None, activation: nn.Module | None) -> Tensor:
    """Add the residual and activate."""
    output = normalized if residual is None else normalized + residual
    return output if activation is None else cast(Tensor, activation(output))


def _batch_statistics_(
    input: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return batch mean and biased variance, without gradient; update the moving statistics in place. One pass."""
    input = input.detach()
    # The fused kernel exists for CPU and CUDA and has no decomposition; the compiler fuses the lines below.
    if input.device.type in ("cpu", "cuda") and running_mean.dtype == dtype and not torch.compiler.is_compiling():
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
        return _affine(input, mean, var, _cast(weight, mean.dtype), _cast(bias, mean.dtype), eps)

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
    if torch.compiler.is_compiling():
        return _backward  # has decompositions, which the compiler fuses
    batched = not torch._C._has_storage(grad_output)  # a batch of gradients under vmap
    if torch.is_grad_enabled() or batched or input.device.type not in ("cpu", "cuda"):
        return twice_differentiable_backward
    return composition.backward if _on_gpu(input) else _backward


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
        _, sum_gx, sum_g = _batch_norm_backward(
            grad_output, input, None, None, None, mean, invstd, True, eps, [False, True, True]
        )
    else:  # half precision: take scale * g from the kernel, since addcmul_ on mixed dtypes is 6-10x slower on CPUs
        scaled_grad, sum_gx, sum_g = _batch_norm_backward(
            grad_output, input, weight, mean, var, None, None, False, eps, [True, True, True]
        )
    grad_input = None
    if needs[0]:
        scale = invstd if weight is None else invstd * weight
        through_statistics = scale * use_batch * (-input.size(1) / input.numel())
        grad_input = _affine(input, mean, var, through_statistics * sum_gx, through_statistics * sum_g, eps)
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


def _affine(input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return `weight * (input - mean) / sqrt(var + eps) + bias` per channel, in one pass."""
    if _on_gpu(input) and not torch.compiler.is_compiling():
        return composition.normalize(input, mean, var, weight, bias, eps)
    return torch.native_batch_norm(input, weight, bias, mean, var, False, 0.0, eps)[0]


def _on_gpu(input: Tensor) -> bool:
    return input.is_cuda
