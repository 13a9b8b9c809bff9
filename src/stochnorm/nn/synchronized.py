"""Algorithm 1 over several processes: statistics of the batches of all, and one mask for all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stochnorm.nn import aten
from stochnorm.nn.cuda import composition

__all__ = ["Synchronization", "stoch_norm_"]


class Synchronization:
    """The processes that a layer shares its statistics and masks with.

    Args:
        process_group: A group of torch.distributed; None for all processes.
    """

    def __init__(self, process_group: dist.ProcessGroup | None = None) -> None:
        self.process_group = process_group
        # Collective operations break the compiler's graph, as those of nn.SyncBatchNorm do. Not a decorator: it would
        # import the compiler, and Triton, together with this file.
        self.stoch_norm_ = torch.compiler.disable(stoch_norm_)  # type: ignore[no-untyped-call]

    def active(self) -> dist.ProcessGroup | None:
        """Return the group; None where there is nothing to synchronize: one process, or torch.distributed not set up.

        Raises:
            RuntimeError: This process is not in the group.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return None
        group = dist.group.WORLD if self.process_group is None else self.process_group
        size = dist.get_world_size(group)
        if size < 1:
            raise RuntimeError(
                f"a synchronized StochNorm layer runs in process {dist.get_rank()}, which is not in the layer's "
                "process group; run the model in the processes of its group only"
            )
        return group if size > 1 else None

    def __deepcopy__(self, memo: dict[int, Any]) -> Synchronization:
        return self  # a copy of a model has the same processes

    def __reduce__(self) -> tuple[type[Synchronization], tuple[()]]:
        if self.process_group is not None:
            raise TypeError(
                "cannot pickle a StochNorm layer that is synchronized over a process group of its own; save its state "
                "dict, or call restore(model) first"
            )
        return type(self), ()


def stoch_norm_(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    use_batch: Tensor,
    momentum: float | None,
    eps: float,
    batches: Tensor | None,
    residual: Tensor | None,
    activation: nn.Module | None,
    group: dist.ProcessGroup,
) -> tuple[Tensor, Iterable[Tensor], Tensor]:
    """Compute `stochnorm.nn.functional.stoch_norm_` with the batch statistics of all processes of a group.

    Every process must call it, in the same order of layers. One collective operation brings the statistics and the mask
    of the group's first process, which all use; backward takes another one. A process may have an empty batch.

    Returns:
        Output and statistics as the unsynchronized function, and the mask that was used.
    """
    if batches is not None:
        batches.add_(1)
    # A cumulative average takes its rate as a tensor, so that nothing waits for the device.
    rate = cast(Tensor, batches).to(running_mean.dtype).reciprocal() if momentum is None else momentum
    if aten.on_gpu(input):
        input = composition.dense(input)
    dtype = torch.float32 if input.dtype in (torch.bfloat16, torch.float16) else input.dtype
    batch_mean, batch_var, values, use_batch = _gathered(*_local_statistics(input, dtype), use_batch, group)
    mean = torch.where(use_batch, batch_mean, running_mean.to(dtype))
    var = torch.where(use_batch, batch_var, running_var.to(dtype))
    unbiased = batch_var * (values / (values - 1).clamp(min=1))
    running_mean.lerp_(batch_mean.to(running_mean.dtype), rate)
    running_var.lerp_(unbiased.to(running_var.dtype), rate)
    output: Tensor = _Normalize.apply(input, mean, var, weight, bias, use_batch, values, eps, group)
    output = output if residual is None else output + residual
    return output if activation is None else activation(output), (mean, var, batch_mean), use_batch


def _local_statistics(input: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, int]:
    """Return mean and biased variance of this process's batch, (c,), and its number of values per channel."""
    input = input.detach()
    values = input.numel() // input.size(1)
    mean, var = (input.new_zeros(input.size(1), dtype=dtype) for _ in range(2))
    if values > 0:
        mean, var = torch.batch_norm_update_stats(input, mean, var, 0.0)
    return mean, var, values


def _gathered(
    mean: Tensor, var: Tensor, values: int, use_batch: Tensor, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Return mean and biased variance over all processes, the number of values, and the first process's mask.

    With $n_i$ values in process i of $n$ in all: $\mu = \sum n_i \mu_i / n$ and
    $\sigma^2 = \sum n_i (\sigma_i^2 + (\mu_i - \mu)^2) / n$, so no difference of large sums is taken. Every process
    computes this of the same numbers in the same order, so all have the same bits.
    """
    c = len(mean)
    own = torch.cat([mean, var, use_batch.to(mean.dtype), mean.new_full((1,), values)])
    every = own.new_empty(dist.get_world_size(group), len(own))
    if own.is_cuda:
        dist.all_gather_into_tensor(every, own, group)
    else:
        dist.all_gather(list(every.unbind()), own, group)
    means, variances, masks, counts = every.split([c, c, c, 1], dim=1)  # type: ignore[no-untyped-call]
    total = counts.sum()
    share = counts / total
    mean = (share * means).sum(0)
    var = (share * (variances + (means - mean).square())).sum(0)
    return mean, var, total, masks[0] > 0


class _Normalize(torch.autograd.Function):
    """Normalize by given statistics; backward adds up the sums of all processes before the input's gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        use_batch: Tensor,
        values: Tensor,
        eps: float,
        group: dist.ProcessGroup,
    ) -> Tensor:
        ctx.save_for_backward(input, mean, var, weight, use_batch, values)
        ctx.eps, ctx.group = eps, group
        ctx.bias_dtype = None if bias is None else bias.dtype
        return _affine(input, mean, var, weight, bias, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        r"""Return the gradients; those of weight and bias are of this process's batch, for DDP to average.

        With n values in all processes,
        $dx = \gamma / \sqrt{\sigma^2 + \epsilon} \; (g - s / n \, (\sum g + \hat x \sum g \hat x))$.
        """
        input, mean, var, weight, use_batch, values = ctx.saved_tensors
        invstd = torch.rsqrt(var + ctx.eps)
        plain = None if weight is None else weight.to(mean.dtype).contiguous()
        if input.numel() == 0:
            scaled, sum_gx, sum_g = torch.zeros_like(input), torch.zeros_like(mean), torch.zeros_like(mean)
        elif aten.on_gpu(input):
            grad_output = grad_output.contiguous(memory_format=composition.memory_format_of(input))
            sum_g, centered, *_ = torch.batch_norm_backward_reduce(
                grad_output, input, mean, invstd, plain, True, False, False
            )
            sum_gx = centered * invstd
        else:
            scaled, sum_gx, sum_g = aten.batch_norm_backward(
                grad_output, input, plain, mean, var, None, None, False, ctx.eps, [True, True, True]
            )
        grad_input = None
        if ctx.needs_input_grad[0]:
            sums = torch.stack([sum_g, sum_gx])
            dist.all_reduce(sums, group=ctx.group)
            sums *= use_batch  # moving statistics do not depend on the input
            if input.numel() == 0:
                grad_input = scaled
            elif aten.on_gpu(input):
                grad_input = torch.batch_norm_backward_elemt(
                    grad_output, input, mean, invstd, plain, sums[0], sums[1] / invstd, values.to(torch.int32).view(1)
                )
            else:
                through = (invstd if plain is None else invstd * plain) / -values
                grad_input = scaled + _affine(input, mean, var, through * sums[1], through * sums[0], ctx.eps)
        grad_weight = sum_gx.to(weight.dtype) if ctx.needs_input_grad[3] else None
        grad_bias = sum_g.to(ctx.bias_dtype) if ctx.needs_input_grad[4] else None
        return grad_input, None, None, grad_weight, grad_bias, None, None, None, None


def _affine(input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return what [stochnorm.nn.aten.affine][] returns, also for a process without images."""
    if input.numel() == 0:
        return torch.zeros_like(input)
    weight, bias = (None if vector is None else vector.to(mean.dtype) for vector in (weight, bias))
    return aten.affine(input, mean, var, weight, bias, eps)
