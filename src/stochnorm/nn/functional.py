"""Algorithm 1 of *Stochastic Normalization* (Kou et al., NeurIPS 2020) as a pure function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stochnorm.nn import aten, composed, traced
from stochnorm.nn.cpu import kernel
from stochnorm.nn.cuda import check, fused
from stochnorm.nn.cuda.activations import NONE, code_of

__all__ = ["stoch_norm"]


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
        ValueError: The input has one value per channel, or a per-channel tensor is not of shape (c,) or on
            another device.
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
        if tensor is not None and tensor.device != input.device:
            raise ValueError(f"{name} must be on the device of the input, {input.device}, got {tensor.device}")
    new_mean, new_var = running_mean.clone(), running_var.clone()
    if input.numel() == 0:
        return F.batch_norm(input, new_mean, new_var, weight, bias, True, momentum, eps), new_mean, new_var
    output, *_ = stoch_norm_(input, new_mean, new_var, weight, bias, use_batch=use_batch, momentum=momentum, eps=eps)
    return output, new_mean, new_var


def check_values_per_channel(input: Tensor) -> None:
    """Raise ValueError, as batch normalization does, if a channel has one value."""
    if input.dim() < 2 or input.size(0) * input.shape[2:].numel() == 1:
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
        code = code_of(activation)
        if check.passes(input, weight is not None, bias is not None, residual is not None, code or NONE, frozen=False):
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
                activation=code or NONE,
            )
            return output if code is not None else _behind(output, None, activation), statistics
    if batches is not None:
        batches.add_(1)
    if use_batch is None:
        use_batch = torch.ones(input.size(1), dtype=torch.bool, device=input.device)
    compiling = torch.compiler.is_compiling()
    rate: float | Tensor
    if momentum is not None:
        rate = momentum
    else:  # on the CPU a number; elsewhere nothing waits for the device
        count = cast(Tensor, batches)
        number = input.is_cpu and not compiling and not composed.is_transformed()
        rate = 1.0 / float(count) if number else count.to(running_mean.dtype).reciprocal()
    if compiling:
        traced_output, traced_statistics = traced.stoch_norm_(
            input, running_mean, running_var, weight, bias, use_batch=use_batch, momentum=rate, eps=eps
        )
        return _behind(traced_output, residual, activation), traced_statistics
    if composed.is_transformed():
        normalized, vectors = composed.stoch_norm_(
            input, running_mean, running_var, weight, bias, use_batch=use_batch, momentum=rate, eps=eps
        )
        return _behind(normalized, residual, activation), vectors
    if isinstance(rate, float) and kernel.fits(input, running_mean, running_var, weight, bias):
        within = kernel.range_of(activation) if residual is None else None
        output, statistics = kernel.stoch_norm_(
            input,
            running_mean,
            running_var,
            weight,
            bias,
            use_batch=use_batch,
            momentum=rate,
            eps=eps,
            output_range=within or kernel.UNBOUNDED,
        )
        return output if within else _behind(output, residual, activation), statistics
    normalized, vectors = aten.stoch_norm_(
        input, running_mean, running_var, weight, bias, use_batch=use_batch, momentum=rate, eps=eps
    )
    return _behind(normalized, residual, activation), vectors


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
        code = code_of(activation)
        if check.passes(input, weight is not None, bias is not None, residual is not None, code or NONE, frozen=True):
            output = fused.frozen_norm(
                input, mean, var, weight, bias, eps=eps, residual=residual, activation=code or NONE
            )
            return output if code is not None else _behind(output, None, activation)
    return _behind(F.batch_norm(input, mean, var, weight, bias, False, 0.0, eps), residual, activation)


def _behind(normalized: Tensor, residual: Tensor | None, activation: nn.Module | None) -> Tensor:
    """Add the residual and activate."""
    output = normalized if residual is None else normalized + residual
    return output if activation is None else cast(Tensor, activation(output))
