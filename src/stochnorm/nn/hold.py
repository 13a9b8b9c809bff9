"""Masks and statistics held still for a second forward pass on the same batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from stochnorm.nn.stochastic import _StochNorm, inside_backward

__all__ = ["hold_statistics"]


@contextmanager
def hold_statistics(model: nn.Module) -> Iterator[None]:
    """Within: StochNorm layers repeat the mask of their last training pass, and no moving statistics change.

    For optimizers and losses that run a batch twice: SAM, R-Drop, consistency losses. As to normalization the second
    pass is the same random function as the first: the same channels take batch statistics, computed anew from the
    second pass, the others the moving statistics as they were before the first pass updated them. Other BatchNorm
    layers normalize by the batch as always and update nothing. Run the second pass's backward inside too if it uses
    activation checkpointing. Nothing is drawn from the random generator here; dropout and stochastic depth draw as
    always.

    Args:
        model: Any module; its StochNorm layers have run in training mode, not under ``torch.compile``, which keeps no
            masks.

    Raises:
        RuntimeError: From a StochNorm layer that has no training pass to repeat, or that runs twice in one pass of the
            model, whose first mask is gone.

    Example:
        >>> import torch, stochnorm
        >>> model = stochnorm.convert(nn.Sequential(nn.BatchNorm1d(4)))
        >>> x = torch.randn(8, 4)
        >>> first = model(x)
        >>> with hold_statistics(model):
        ...     second = model(x)
        >>> torch.equal(first, second)
        True
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    stochastic = [layer for layer in layers if isinstance(layer, _StochNorm)]
    momenta = [layer.momentum for layer in layers]
    held = [layer._held for layer in stochastic]  # by a block around this one
    counters = [
        (m.num_batches_tracked, m.num_batches_tracked.clone()) for m in layers if m.num_batches_tracked is not None
    ]
    hooks = _once_a_pass(model, stochastic)
    try:
        for layer in layers:
            layer.momentum = 0.0
        for layer in stochastic:
            layer._held = True
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for layer, before in zip(stochastic, held, strict=True):
            layer._held = before
        with torch.no_grad():
            for counter, value in counters:
                counter.copy_(value)


def _once_a_pass(model: nn.Module, layers: list[_StochNorm]) -> list[RemovableHandle]:
    """Hooks that see to it that no layer runs twice in a pass of the model: of several masks the last one is kept."""
    ran: set[nn.Module] | None = None  # outside of its passes

    def begin(*_: object) -> None:
        nonlocal ran
        ran = set()

    def end(*_: object) -> None:
        nonlocal ran
        ran = None

    def once(layer: nn.Module, _: object) -> None:
        if ran is None or inside_backward():
            return
        if layer in ran:
            raise RuntimeError(
                "hold_statistics cannot repeat a StochNorm layer that runs twice in one forward pass: the mask of its "
                "first run is gone; use a layer of its own for each place"
            )
        ran.add(layer)

    return [
        model.register_forward_pre_hook(begin),
        *(layer.register_forward_pre_hook(once) for layer in layers if layer is not model),
        model.register_forward_hook(end),
    ]
