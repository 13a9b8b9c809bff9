"""Compute the moving statistics of a model from data, or set the ones that fine-tuning starts from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.hooks.modes import evaluating
from stochnorm.nn.select import normalization_layers
from stochnorm.nn.stochastic import _StochNorm

__all__ = ["initialize_statistics", "update_statistics"]

ModelT = TypeVar("ModelT", bound=nn.Module)


@torch.no_grad()
def update_statistics(model: ModelT, loader: Iterable[Any], device: torch.device | str | None = None) -> ModelT:
    """Recompute the moving statistics of every BatchNorm and StochNorm layer as the average over batches, in place.

    It does for both what `torch.optim.swa_utils.update_bn` does for BatchNorm: use it after weight averaging, or to
    adapt the statistics to new data. Meanwhile StochNorm layers normalize every channel by batch statistics (p = 1);
    with p < 1 they would use the statistics that are being recomputed. Unlike in `update_bn`, all other layers run in
    eval mode, so the statistics are those of inference (no dropout, no stochastic depth). Afterwards p, `momentum` and
    every module's `training` flag are as before; after an error the statistics are, too.

    Args:
        model: Any module that takes one batch of inputs.
        loader: Batches: tensors (b, ...), or lists or tuples whose first item is the inputs. All batches have the same
            weight.
        device: Device to move each batch to; None does not move it.

    Returns:
        The model.

    Raises:
        ValueError: No layer with moving statistics, or no batch.

    Example:
        >>> model = stochnorm.convert(nn.Sequential(nn.BatchNorm1d(2)))
        >>> update_statistics(model, [torch.zeros(4, 2), torch.ones(4, 2)])[0].running_mean
        tensor([0.5000, 0.5000])
    """
    layers = _layers(model)
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
                raise ValueError("no batch to compute the statistics from: the loader is empty")
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


def initialize_statistics(
    model: ModelT,
    how: Literal["pretrained", "zero_one", "target"],
    loader: Iterable[Any] | None = None,
    device: torch.device | str | None = None,
) -> ModelT:
    """Set the moving statistics of every BatchNorm, StochNorm and frozen layer before fine-tuning, in place.

    `pretrained` keeps them; in the paper it is the best. `zero_one` sets means to 0 and variances to 1. In the paper
    it is the worst, but still better than BatchNorm: it shows the effect of the two branches alone. `target` computes
    them from the training images with [stochnorm.nn.update_statistics][]. *Stochastic Normalization*, Kou et al.,
    NeurIPS 2020, Section 5.4 and Figure 4a.

    Args:
        model: Any module with its pre-trained weights.
        how: `pretrained`, `zero_one` or `target`.
        loader: For `target`: batches of **training** images; tensors (b, ...), or lists or tuples whose first item is
            the inputs. Otherwise not read.
        device: For `target`: device to move each batch to; None does not move it.

    Returns:
        The model.

    Raises:
        ValueError: Unknown `how`, `target` without batches, or no layer with moving statistics.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2))
        >>> initialize_statistics(model, "target", [torch.full((4, 2), 3.0)])[0].running_mean
        tensor([3., 3.])
        >>> initialize_statistics(model, "zero_one")[0].running_mean
        tensor([0., 0.])
    """
    if how not in ("pretrained", "zero_one", "target"):
        raise ValueError(f"initial statistics must be pretrained, zero_one or target, got {how!r}")
    layers = _layers(model)
    if how == "target":
        if loader is None:
            raise ValueError("initial statistics of the target data need batches of training images: pass loader")
        update_statistics(model, loader, device)
    elif how == "zero_one":
        for layer in layers:
            layer.reset_running_stats()
    return model


def _layers(model: nn.Module) -> list[_BatchNorm]:
    layers = normalization_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BatchNorm or StochNorm layer with moving statistics")
    return layers
