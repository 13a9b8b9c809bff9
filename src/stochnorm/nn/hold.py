"""Masks and statistics held still for a second forward pass on the same batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.layer import _StochNorm

__all__ = ["hold_statistics"]


@contextmanager
def hold_statistics(model: nn.Module) -> Iterator[None]:
    """Within: StochNorm layers repeat the mask of their last training step, and no moving statistics change.

    For optimizers and losses that run a batch twice: SAM, R-Drop, consistency losses. The second pass is the same
    random function as the first: the same channels take batch statistics, computed anew from the second pass, the
    others the moving statistics as they were before the first pass updated them. Other BatchNorm layers normalize by
    the batch as always and update nothing. Run the second pass's backward inside too if it uses activation
    checkpointing. Nothing is drawn from the random generator.

    Args:
        model: Any module; its StochNorm layers have run in training mode.

    Raises:
        RuntimeError: From a StochNorm layer that has no training step to repeat.

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
    momenta = [layer.momentum for layer in layers]
    counters = [
        (m.num_batches_tracked, m.num_batches_tracked.clone()) for m in layers if m.num_batches_tracked is not None
    ]
    try:
        for layer in layers:
            layer.momentum = 0.0
            if isinstance(layer, _StochNorm):
                layer._held = True
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.__dict__.pop("_held", None)
        with torch.no_grad():
            for counter, value in counters:
                counter.copy_(value)
