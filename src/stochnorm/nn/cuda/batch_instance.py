"""Batch-Instance Normalization on GPUs by the Triton kernels of `instances.py`, with the activation and a residual.

It takes the passes of batch normalization: three in forward, five in backward; a residual costs one more in forward
and, with an activation, three in backward. PyTorch's own kernels for the two terms and their sum take nine in forward
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from stochnorm.nn.cuda import fused, trust
from stochnorm.nn.cuda.tiling import format_of, tiling

__all__ = ["Formula", "compare", "fits", "mix", "passes"]

_MOST_IMAGES = 1024  # one program combines the statistics of all images of some channels

Formula = Callable[..., Tensor]
"""`batch_instance_norm` as PyTorch's own kernels compute it."""


def fits(input: Tensor, residual: Tensor | None, *vectors: Tensor | None) -> bool:
    """Return whether the kernels support these tensors, and an image has several values per channel."""
    return fused.fits(input, residual, *vectors) and input.size(0) <= _MOST_IMAGES and input.shape[2:].numel() > 1


def mix(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    rho: Tensor,
    training: bool,
    momentum: float | None,
    eps: float,
    batches: Tensor | None,
    residual: Tensor | None,
    activation: int,
    formula: Formula,
) -> Tensor:
    """Return `activation(batch_instance_norm(input) + residual)` for arguments that `fits` accepts.

    Args:
        momentum: Weight of the batch statistics in the moving ones; None for the cumulative average of `batches`.
        batches: Number of batches that the moving statistics have seen, int64 (); counted up here.
        activation: Its number, as `fused.code_of` returns it.
        formula: Differentiates twice.
    """
    output: Tensor = _Mix.apply(
        input, weight, bias, rho, residual, running_mean, running_var, training, momentum, eps, batches, activation,
        formula,
    )  # fmt: skip
    return output


class _Mix(torch.autograd.Function):
    """The kernels with their gradient; updates the moving statistics and `batches` in place."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        rho: Tensor,
        residual: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float | None,
        eps: float,
        batches: Tensor | None,
        activation: int,
        formula: Formula,
    ) -> Tensor:
        from stochnorm.nn.cuda import launch_instances as launch

        place = launch.place_of(input)
        input = place.dense(input)
        residual = None if residual is None else place.dense(residual)
        with fused._current(input):
            instances, batch = launch.moments(
                input, place, running_mean, running_var, weight, bias, rho, training, momentum, eps, batches
            )
            output = launch.apply(input, place, residual, instances, activation)
        moving = (None, None) if training else (running_mean, running_var)
        kept = residual if activation else None
        ctx.save_for_backward(input, weight, bias, rho, kept, instances, batch, *moving)
        ctx.training, ctx.eps, ctx.activation, ctx.formula = training, eps, activation, formula
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        from stochnorm.nn.cuda import launch_instances as launch

        input, weight, bias, rho, residual, instances, batch, *moving = ctx.saved_tensors
        needs, activation = ctx.needs_input_grad[:5], ctx.activation
        if torch.is_grad_enabled() or not torch._C._has_storage(grad_output):
            return (*_twice_differentiable(ctx, grad_output, input, weight, bias, rho, residual, moving), *[None] * 8)
        place = launch.place_of(input)
        grad = place.dense(grad_output)
        grad_input = None
        with fused._current(input):
            behind = torch.empty_like(input) if activation and needs[4] else None
            results, coefficients = launch.products(
                grad, input, place, residual, behind, instances, batch, weight, rho, ctx.training, activation
            )
            if behind is not None:
                grad, activation = behind, 0
            if needs[0]:
                grad_input = launch.gradient(grad, input, place, residual, instances, coefficients, activation)
        return (
            grad_input,
            *(result if need else None for result, need in zip(results.unbind(), needs[1:4], strict=True)),
            grad if needs[4] else None,
            *[None] * 8,
        )


def _twice_differentiable(
    ctx: Any,
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    rho: Tensor,
    residual: Tensor | None,
    moving: list[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Return the gradients by autograd through the formula."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        before = ctx.formula(input, *moving, weight, bias, rho=rho, training=ctx.training, eps=ctx.eps, momentum=0.0)
        if ctx.activation:
            before = before if residual is None else before + residual
            output = fused.ACTIVATIONS[ctx.activation](before)
            (grad_output,) = torch.autograd.grad(
                output, before, grad_output, create_graph=create_graph, retain_graph=True
            )
    needs = ctx.needs_input_grad[:5]
    given = zip((input, weight, bias, rho), needs, strict=False)
    leaves = [leaf for leaf, needed in given if needed and leaf is not None]
    grads = iter(torch.autograd.grad(before, leaves, grad_output, create_graph=create_graph) if leaves else ())
    return *(next(grads) if need else None for need in needs[:4]), grad_output if needs[4] else None


def passes(
    input: Tensor, scaled: bool, shifted: bool, added: bool, activation: int, formula: Formula, *, training: bool
) -> bool:
    """Return whether the kernels compute the right values for inputs like this one; remembered."""
    last, _ = format_of(input)
    constants = tiling(input.shape, last, input.element_size(), 1).constants
    key = ("mix", input.get_device(), input.dtype, constants, scaled, shifted, added, activation, training)
    return trust.trusted(key, lambda: compare(input, scaled, shifted, added, activation, formula, training=training))


@torch.enable_grad()
def compare(
    input: Tensor, scaled: bool, shifted: bool, added: bool, activation: int, formula: Formula, *, training: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the results and gradients of the kernels, each with that of the formula in float64.

    The input is a random one like the given, of two images.
    """
    with torch.inference_mode(False):
        generator = torch.Generator(input.device).manual_seed(0)
        _, memory_format = format_of(input)
        channels, device = input.size(1), input.device

        def draw(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, device=device, dtype=torch.float32)

        def like_input() -> Tensor:
            return draw(2, *input.shape[1:]).to(input.dtype).contiguous(memory_format=memory_format)

        x = (like_input() * 2 + 1).requires_grad_()
        residual = like_input().requires_grad_() if added else None
        weight = draw(channels).requires_grad_() if scaled else None
        bias = draw(channels).requires_grad_() if shifted else None
        rho = draw(channels).sigmoid().requires_grad_()
        mean, var = draw(channels), draw(channels).square() + 0.5
        wide = [None if t is None else t.detach().double().requires_grad_() for t in (x, weight, bias, rho, residual)]
        wide_mean, wide_var = mean.double(), var.double()
        right = formula(
            wide[0], wide_mean, wide_var, wide[1], wide[2], rho=wide[3], training=training, momentum=0.1, eps=1e-5
        )
        right = right if wide[4] is None else right + wide[4]
        # Away from the activation's kinks, at which rounding decides about a whole gradient.
        near = torch.minimum(right.abs(), (right - 6).abs()) < 0.1
        grad = torch.where(near, 0, like_input()).contiguous(memory_format=memory_format)
        right = fused.ACTIVATIONS[activation](right)
        batches = torch.zeros((), dtype=torch.int64, device=device)
        ours = mix(
            x, mean, var, weight, bias, rho=rho, training=training, momentum=0.1, eps=1e-5,
            batches=batches if training else None, residual=residual, activation=activation, formula=formula,
        )  # fmt: skip
        yield mean, wide_mean
        yield var, wide_var
        yield batches.float(), torch.full_like(batches, int(training))
        yield ours.detach(), right.detach()
        leaves = [leaf for leaf in (x, weight, bias, rho, residual) if leaf is not None]
        kept = [leaf for leaf in wide if leaf is not None]
        yield from zip(
            torch.autograd.grad(ours, leaves, grad), torch.autograd.grad(right, kept, grad.double()), strict=True
        )
