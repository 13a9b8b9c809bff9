"""Recompute moving statistics from data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.hooks.modes import evaluating
from stochnorm.nn.stochastic import _StochNorm

__all__ = ["update_statistics"]


@torch.no_grad()
def update_statistics(model: nn.Module, loader: Iterable[Any], device: torch.device | str | None = None) -> nn.Module:
    """Recompute the moving statistics of every BatchNorm and StochNorm layer as the average over batches, in place.

    What :func:`torch.optim.swa_utils.update_bn` does for BatchNorm: after weight averaging, or to adapt the
    statistics to new data. For the pass, StochNorm layers normalize by batch statistics in every channel (p = 1):
    with p < 1 they would normalize by the very statistics that are being recomputed. Unlike ``update_bn``, all other
    layers run in eval mode, so that the statistics are those of inference (no dropout, no stochastic depth).
    p, ``momentum`` and every module's ``training`` flag are as before afterwards; after an error the statistics too.

    Args:
        model: The module; called with one batch of inputs.
        loader: Batches: tensors (b, ...), or lists, tuples whose first item is the inputs. Each batch counts the same.
        device: Where batches are moved; None leaves them.

    Returns:
        The model.

    Raises:
        ValueError: The model has no layer with moving statistics, or the loader is empty.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2))
        >>> _ = update_statistics(model, [torch.ones(4, 2), torch.zeros(4, 2)])
        >>> model[0].running_mean
        tensor([0.5000, 0.5000])
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BatchNorm or StochNorm layer with moving statistics")
    settings = [(layer, layer.momentum, getattr(layer, "p", None)) for layer in layers]
    buffers = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers(recurse=False)]
    batches = 0
    try:
        with evaluating(model):
            for layer in layers:
                layer.training = True  # not train(), which would switch on the dropout that timm's layers carry
                layer.reset_running_stats()
                layer.momentum = None  # cumulative average
                if isinstance(layer, _StochNorm):
                    layer.p = 1.0
            for batch in loader:
                inputs: Tensor = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(inputs if device is None else inputs.to(device))
                batches += 1
            if batches == 0:
                raise ValueError("the loader gave no batch: there is nothing to compute the statistics from")
    except BaseException:
        for buffer, value in buffers:
            buffer.copy_(value)
        raise
    finally:
        for layer, momentum, p in settings:
            layer.momentum = momentum
            if isinstance(layer, _StochNorm) and p is not None:
                layer.p = p
    return model
