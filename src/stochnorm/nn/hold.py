"""Hold masks and statistics for a second forward pass on the same batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stochnorm.nn.recomputation import step_to_repeat
from stochnorm.nn.select import normalization_layers
from stochnorm.nn.stochastic import _StochNorm

__all__ = ["hold_statistics"]


@contextmanager
def hold_statistics(model: nn.Module) -> Iterator[None]:
    """Repeat the masks of the last training pass and keep all moving statistics, within a `with` block.

    This is for optimizers and losses that run a batch twice: SAM, R-Drop, consistency losses. The second pass
    normalizes with the same random function as the first: the same channels use batch statistics, computed from the
    second pass; the other channels use the moving statistics from before the first pass updated them. Other BatchNorm
    layers normalize by the batch and update nothing. If such layers are checkpointed in the second pass, run its
    backward pass inside the block, too, as their recomputation updates them. StochNorm draws no random number here;
    dropout and stochastic depth still do.

    Args:
        model: Any module whose StochNorm layers have run in training mode, not under `torch.compile`, which keeps no
            masks.

    Raises:
        RuntimeError: A StochNorm layer has no training pass to repeat, or it runs twice in one pass of the model, so
            its first mask is lost.

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
    layers = normalization_layers(model)
    stochastic = [layer for layer in layers if isinstance(layer, _StochNorm)]
    momenta = [layer.momentum for layer in layers]
    held = [layer._held for layer in stochastic]  # True inside an outer block
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
    """Register hooks that raise when a layer runs twice in a pass of the model, because only the last mask is kept."""
    ran: set[nn.Module] | None = None  # None outside the passes of the model

    def begin(*_: object) -> None:
        nonlocal ran
        ran = set()

    def end(*_: object) -> None:
        nonlocal ran
        ran = None

    def once(layer: nn.Module, _: object) -> None:
        if ran is None or step_to_repeat(layer) is not None:
            return
        if layer in ran:
            raise RuntimeError(
                "hold_statistics cannot repeat a StochNorm layer that runs twice in one forward pass: the mask of its "
                "first run is lost; use a separate layer for each place"
            )
        ran.add(layer)

    return [
        model.register_forward_pre_hook(begin),
        *(layer.register_forward_pre_hook(once) for layer in layers if layer is not model),
        model.register_forward_hook(end),
    ]
