"""The Triton kernels as a function with a gradient; imported only where Triton is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stochnorm.nn.cuda import launch
from stochnorm.nn.cuda.activations import FUNCTIONS, NONE, RELU, RELU6, SILU
from stochnorm.nn.cuda.place import Place
from stochnorm.nn.double_backward import twice_differentiable_backward

__all__ = ["Normalize"]


class Normalize(torch.autograd.Function):
    """Compute `activation(normalized + residual)`; like batch normalization, differentiate through the statistics.

    It saves one tensor like the input and vectors of length c; a second one for a residual with an activation. The
    gradients of gradients come from the written formula.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        mean: Tensor,
        var: Tensor | None,
        use_batch: Tensor | None,
        eps: float,
        activation: int,
        constant: bool,
        place: Place,
    ) -> Tensor:
        """Run one kernel.

        Args:
            ctx: Autograd's.
            input: Dense, in float32, bfloat16 or float16.
            weight: Scale gamma; None is 1.
            bias: Shift beta; None is 0.
            residual: Like the input.
            mean: Mean of each channel.
            var: Variance of each channel; None if it follows the mean in memory.
            use_batch: True where the statistics are those of the input; None is everywhere.
            eps: Constant added to the variances.
            activation: Its number, as `activations.code_of` returns it.
            constant: The statistics do not depend on the input, in no channel.
            place: How the input lies in memory.
        """
        output = launch.apply(input, place, mean, var, weight, bias, eps, residual, activation)
        ctx.sums = not constant or ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        if activation in (RELU, RELU6) and (residual is not None or not ctx.sums):
            ctx.source, beside = "output", output  # which the next layer keeps, too
        elif activation == SILU and residual is not None:
            ctx.source, beside = "residual", residual
        else:
            ctx.source, beside = "input", None
        needed = ctx.sums or (activation and ctx.source != "output")
        ctx.save_for_backward(input if needed else None, mean, var, weight, bias, use_batch, beside)
        ctx.place, ctx.shape, ctx.eps, ctx.activation, ctx.constant = place, input.shape, eps, activation, constant
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled() or not torch._C._has_storage(grad_output):  # create_graph, or a batch under vmap
            return (*_differentiable(ctx, grad_output, needs), *[None] * 7)
        input, mean, var, weight, bias, use_batch, beside = ctx.saved_tensors
        place, activation, source = ctx.place, ctx.activation, ctx.source
        grad = place.dense(grad_output)
        # As they were saved, except by a hook that brings them back otherwise.
        if input is not None:
            input = place.dense(input)
        if beside is not None:
            beside = place.dense(beside)
        constants = (mean, var, weight, bias, ctx.eps)
        behind = grad_input = results = None
        if activation and (needs[3] or (source != "input" and not ctx.constant)):
            behind = torch.empty_like(grad)
        if needs[0]:
            grad_input = torch.empty_like(grad)
        if ctx.sums and (not ctx.constant or needs[1] or needs[2]):
            direct = grad_input if ctx.constant else None  # does not wait for the sums
            results = launch.products(
                grad, input, place, beside, behind, direct, *constants, use_batch, activation, source
            )
            if grad_input is not None and not ctx.constant:
                g, left, source = (grad, activation, source) if behind is None else (behind, NONE, "input")
                launch.gradient(g, input, place, None, None, grad_input, results, *constants, left, source)
        elif grad_input is not None or behind is not None:
            launch.gradient(grad, input, place, beside, behind, grad_input, None, *constants, activation, source)
        grad_weight = results[0] if results is not None and needs[1] else None
        grad_bias = results[1] if results is not None and needs[2] else None
        grad_residual = (grad if behind is None else behind) if needs[3] else None
        return (grad_input, grad_weight, grad_bias, grad_residual, *[None] * 7)


def _differentiable(ctx: Any, grad_output: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    input, mean, var, weight, bias, use_batch, beside = ctx.saved_tensors
    activation = ctx.activation
    if ctx.source == "output":  # the derivative of ReLU or ReLU6 is a mask, which is a constant
        y = beside.detach()
        inside = y > 0 if activation == RELU else (y > 0) & (y < 6)
        grad_output, activation = grad_output * inside, NONE
    if var is None:
        mean, var = mean[0], mean[1]
    if ctx.constant:
        use_batch = None
    elif use_batch is None:
        use_batch = torch.ones_like(mean, dtype=torch.bool)
    if input is None:  # not saved, since no derivative depends on it
        input = torch.zeros(ctx.shape, dtype=grad_output.dtype, device=mean.device, requires_grad=True)
    function = FUNCTIONS[activation] if activation else None
    residual = beside if ctx.source == "residual" else None
    return twice_differentiable_backward(
        grad_output, input, mean, var, weight, use_batch, ctx.eps, needs, bias, residual, function
    )
