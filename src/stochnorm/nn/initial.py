"""The moving statistics that fine-tuning starts from (Figure 4a of the paper)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.statistics import update_statistics

__all__ = ["initialize_statistics"]

ModelT = TypeVar("ModelT", bound=nn.Module)


def initialize_statistics(
    model: ModelT,
    how: Literal["pretrained", "zero_one", "target"],
    loader: Iterable[Any] | None = None,
    device: torch.device | str | None = None,
) -> ModelT:
    """Set the moving statistics of every BatchNorm, StochNorm and frozen layer before fine-tuning, in place.

    ``pretrained`` leaves them as they were inherited; in the paper it is the best. ``zero_one`` sets means to 0 and
    variances to 1; the worst there, though still better than BatchNorm: it shows what the two branches alone do.
    ``target`` computes them from the training images, by :func:`stochnorm.nn.update_statistics`. *Stochastic
    Normalization*, Kou et al., NeurIPS 2020, section 5.4.

    Args:
        model: The module, with its pre-trained weights.
        how: ``pretrained``, ``zero_one`` or ``target``.
        loader: For ``target``: batches of **training** images; tensors (b, ...), or lists, tuples whose first item
            is the inputs. Not read otherwise.
        device: For ``target``: where batches are moved; None leaves them.

    Returns:
        The model.

    Raises:
        ValueError: Unknown ``how``; ``target`` without batches; no layer with moving statistics.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2))
        >>> initialize_statistics(model, "target", [torch.full((4, 2), 3.0)])[0].running_mean
        tensor([3., 3.])
        >>> initialize_statistics(model, "zero_one")[0].running_mean
        tensor([0., 0.])
    """
    if how not in ("pretrained", "zero_one", "target"):
        raise ValueError(f"initial statistics must be pretrained, zero_one or target, got {how!r}")
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BatchNorm or StochNorm layer with moving statistics")
    if how == "target":
        if loader is None:
            raise ValueError("initial statistics of the target data need batches of training images: pass loader")
        update_statistics(model, loader, device)
    elif how == "zero_one":
        for layer in layers:
            layer.reset_running_stats()
    return model
