"""Run the Triton kernels on a small input and compare them with the written formula in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from stochnorm.nn.cuda import fused, trust
from stochnorm.nn.cuda.activations import FUNCTIONS
from stochnorm.nn.cuda.tiling import format_of, tiling
from stochnorm.nn.double_backward import formula

__all__ = ["compare", "passes", "small_shape"]

_EPS = 1e-5


def passes(input: Tensor, scaled: bool, shifted: bool, added: bool, activation: int, *, frozen: bool) -> bool:
    """Return whether the kernels compute the right values for inputs like this one; the answer is remembered.

    Args:
        input: An input that `fused.fits` accepts.
        scaled: The layer has a weight.
        shifted: The layer has a bias.
        added: A residual is added.
        activation: Number of the activation.
        frozen: The statistics are constants.
    """
    last, _ = format_of(input)
    constants = tiling(input.shape, last, input.element_size(), 1).constants
    key = (input.get_device(), input.dtype, constants, scaled, shifted, added, activation, frozen)
    return trust.trusted(key, lambda: compare(input, scaled, shifted, added, activation, frozen=frozen))


def small_shape(like: Tensor) -> tuple[int, ...]:
    """Return the shape of a small input for which the same kernels are compiled."""
    last, _ = format_of(like)
    channels, axes = like.size(1), like.shape[2:]
    if axes.numel() == 1:
        return (300, channels, *axes)
    if last:
        return (2, channels, *[min(size, 16) for size in axes])
    rows = tiling(like.shape, last, like.element_size(), 1).constants.rows
    return (2, min(channels, 2 * rows), *axes)


def compare(
    like: Tensor, scaled: bool, shifted: bool, added: bool, activation: int, *, frozen: bool
) -> list[tuple[Tensor, Tensor]]:
    """Return results and gradients of the kernels for a small random input, with those of the formula in float64."""
    device, dtype, shape = like.device, like.dtype, small_shape(like)
    channels = shape[1]
    _, memory_format = format_of(like)
    generator = torch.Generator(device).manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device, dtype=torch.float32)

    def image() -> Tensor:
        return draw(*shape).to(dtype).contiguous(memory_format=memory_format)

    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        leaves = [
            image().mul_(2).add_(1),
            draw(channels) if scaled else None,
            draw(channels) if shifted else None,
            image() if added else None,
        ]
        mean, var, mask, grad = draw(channels), draw(channels).square() + 0.5, draw(channels) > 0, image()
        x, weight, bias, residual = [leaf if leaf is None else leaf.requires_grad_() for leaf in leaves]
        wide = [leaf if leaf is None else leaf.detach().double().requires_grad_() for leaf in leaves]
        results = _formula(wide, mean.double(), var.double(), None if frozen else mask)
        near_a_kink = (results.abs() < 0.1) | ((results - 6).abs() < 0.1)  # rounding would decide about the gradient
        grad.masked_fill_(near_a_kink, 0)
        results = FUNCTIONS[activation](results)
        pairs = []
        given = (x, mean, var, weight, bias)
        if frozen:
            ours = fused.frozen_norm(*given, eps=_EPS, residual=residual, activation=activation)  # type: ignore[arg-type]
        else:
            axes = [axis for axis in range(like.dim()) if axis != 1]
            batch_var, batch_mean = torch.var_mean(wide[0].detach(), axes)  # type: ignore[union-attr]
            expected = [torch.lerp(mean.double(), batch_mean, 0.1), torch.lerp(var.double(), batch_var, 0.1)]
            batches = torch.zeros((), dtype=torch.int64, device=device)
            ours, _ = fused.stoch_norm_(
                *given,  # type: ignore[arg-type]
                use_batch=mask, momentum=0.1, eps=_EPS, batches=batches, residual=residual, activation=activation,
            )  # fmt: skip
            pairs = [*zip((mean, var), expected, strict=True), (batches.float(), torch.ones((), device=device))]
        gradients = torch.autograd.grad(ours, [leaf for leaf in (x, weight, bias, residual) if leaf is not None], grad)
        right = torch.autograd.grad(results, [leaf for leaf in wide if leaf is not None], grad.double())
        return [*pairs, (ours.detach(), results.detach()), *zip(gradients, right, strict=True)]


def _formula(leaves: list[Tensor | None], mean: Tensor, var: Tensor, mask: Tensor | None) -> Tensor:
    input, weight, bias, residual = leaves
    output = formula(input, mean, var, weight, bias, mask, _EPS)  # type: ignore[arg-type]
    return output if residual is None else output + residual
