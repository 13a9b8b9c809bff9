"""Batch-Instance Normalization on GPUs by Triton kernels, with the activation and a residual.

It takes the passes of batch normalization: three in forward, five in backward; a residual costs one more in forward
and, with an activation, three in backward. PyTorch's own kernels for the two terms and their sum take nine in forward
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stochnorm.nn.cuda import fused, trust
from stochnorm.nn.cuda.activations import FUNCTIONS, NONE
from stochnorm.nn.cuda.place import current_gpu, place_of
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
        activation: Its number, as `activations.code_of` returns it.
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

        place = place_of(input, by_image=True)
        input = place.dense(input)
        residual = None if residual is None else place.dense(residual)
        with current_gpu(input):
            instances, batch = launch.moments(
                input, place, running_mean, running_var, weight, bias, rho, training, momentum, eps, batches
            )
            output = launch.apply(input, place, residual, instances, activation)
        moving = (None, None) if training else (running_mean, running_var)
        kept = residual if activation else None
        ctx.save_for_backward(input, weight, bias, rho, kept, instances, batch, *moving)
        ctx.place, ctx.training, ctx.eps, ctx.activation, ctx.formula = place, training, eps, activation, formula
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        from stochnorm.nn.cuda import launch_instances as launch

        input, weight, bias, rho, residual, instances, batch, *moving = ctx.saved_tensors
        needs, activation = ctx.needs_input_grad[:5], ctx.activation
        if torch.is_grad_enabled() or not torch._C._has_storage(grad_output):
            return (*_twice_differentiable(ctx, grad_output, input, weight, bias, rho, residual, moving), *[None] * 8)
        place = ctx.place  # saved tensors may come back in another memory order
        input, grad = place.dense(input), place.dense(grad_output)
        residual = None if residual is None else place.dense(residual)
        grad_input = None
        with current_gpu(input):
            behind = torch.empty_like(input) if activation and needs[4] else None
            results, coefficients = launch.products(
                grad, input, place, residual, behind, instances, batch, weight, rho, ctx.training, activation
            )
            if behind is not None:
                grad, activation = behind, NONE
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
            output = FUNCTIONS[ctx.activation](before)
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


def compare(
    like: Tensor, scaled: bool, shifted: bool, added: bool, activation: int, formula: Formula, *, training: bool
) -> list[tuple[Tensor, Tensor]]:
    """Return results and gradients of the kernels for a random input, each with that of the formula in float64.

    The input is like the given one, but has two images.
    """
    device, channels = like.device, like.size(1)
    _, memory_format = format_of(like)
    generator = torch.Generator(device).manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device, dtype=torch.float32)

    def image() -> Tensor:
        return draw(2, *like.shape[1:]).to(like.dtype).contiguous(memory_format=memory_format)

    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        leaves = [
            image().mul_(2).add_(1),
            draw(channels) if scaled else None,
            draw(channels) if shifted else None,
            draw(channels).sigmoid_(),
            image() if added else None,
        ]
        wide = [leaf if leaf is None else leaf.double().requires_grad_() for leaf in leaves]
        mean, var, grad = draw(channels), draw(channels).square() + 0.5, image()
        wide_mean, wide_var, batches = mean.double(), var.double(), torch.zeros((), dtype=torch.int64, device=device)
        settings = {"training": training, "momentum": 0.1, "eps": 1e-5}
        right = formula(wide[0], wide_mean, wide_var, wide[1], wide[2], rho=wide[3], **settings)
        right = right if wide[4] is None else right + wide[4]
        near_a_kink = (right.abs() < 0.1) | ((right - 6).abs() < 0.1)  # rounding would decide about the gradient
        grad.masked_fill_(near_a_kink, 0)
        right = FUNCTIONS[activation](right)
        x, weight, bias, rho, residual = [leaf if leaf is None else leaf.requires_grad_() for leaf in leaves]
        ours = mix(
            x, mean, var, weight, bias, rho=rho, batches=batches if training else None, residual=residual,  # type: ignore[arg-type]
            activation=activation, formula=formula, **settings,  # type: ignore[arg-type]
        )  # fmt: skip
        gradients = torch.autograd.grad(ours, [leaf for leaf in leaves if leaf is not None], grad)
        expected = torch.autograd.grad(right, [leaf for leaf in wide if leaf is not None], grad.double())
        return [
            *((mean, wide_mean), (var, wide_var), (batches.float(), torch.full_like(batches, int(training)))),
            (ours.detach(), right.detach()),
            *zip(gradients, expected, strict=True),
        ]
