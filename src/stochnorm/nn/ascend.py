"""Weights at the sharpest point nearby, for the second pass of sharpness-aware minimization."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stochnorm.nn.hold import hold_statistics

__all__ = ["ascended"]


@contextmanager
def ascended(
    model: nn.Module,
    *,
    rho: float,
    parameters: Iterable[nn.Parameter] | None = None,
    before: Sequence[Tensor | None] | None = None,
) -> Iterator[None]:
    r"""Move the weights to the worst point within a distance, and begin new gradients, within a `with` block.

    Foret, Kleiner, Mobahi, Neyshabur: *Sharpness-Aware Minimization for Efficiently Improving Generalization*, ICLR
    2021, equation 2: with the gradients g that the first backward pass has left, the weights are at

    $$ w + \rho \frac{g}{\lVert g \rVert_2} $$

    with the norm over all parameters. Behind the block the weights are w again, bit for bit, and the gradients are
    those of the block: a step of an optimizer with them is a step of SAM.

    The block holds masks and moving statistics ([stochnorm.nn.hold.hold_statistics][]). The first pass is at w, the
    weights that are kept, so its statistics are theirs; those at the sharpest point belong to no model. And g is a
    direction of ascent of the function that the first pass has computed, with its mask; with another mask the second
    pass would climb on another function than the one it measures.

    Nothing waits for the device.

    Args:
        model: The network, after a forward and a backward pass.
        rho: The distance, at least 0.
        parameters: What to move, and the gradients to begin; None: all of the model. Those without gradient stay.
        before: Gradients that the block adds to, one per parameter, as of earlier parts of a batch; None: none.

    Raises:
        ValueError: A negative rho.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 2.0)
        >>> model(torch.ones(1, 1)).square().sum().backward()
        >>> with ascended(model, rho=0.5):
        ...     model(torch.ones(1, 1)).square().sum().backward()
        >>> model.weight.item(), model.weight.grad.item()  # the gradient of w^2 at 2.5
        (2.0, 5.0)
    """
    if not rho >= 0:
        raise ValueError(f"rho must be at least 0, got {rho!r}: it is the distance to the sharpest point")
    moved = list(model.parameters() if parameters is None else parameters)
    gradients = [parameter.grad for parameter in moved]
    weights = [parameter.detach() for parameter, g in zip(moved, gradients, strict=True) if g is not None]
    places = [weight.clone() for weight in weights]
    with torch.no_grad():
        if weights:
            _climb(weights, [g for g in gradients if g is not None], rho)
    torch.clear_autocast_cache()  # it holds the weights as they were
    for parameter, gradient in zip(moved, before or [None] * len(moved), strict=True):
        parameter.grad = gradient
    try:
        with hold_statistics(model):
            yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(weights, places)
        torch.clear_autocast_cache()


def _climb(weights: list[Tensor], gradients: list[Tensor], rho: float) -> None:
    """Move weights by rho along their gradients, in place."""
    norm = torch.stack([norm.float() for norm in torch._foreach_norm(gradients)]).norm()
    steps = torch._foreach_mul(gradients, rho / (norm + 1e-12))
    torch._foreach_add_(weights, steps)
