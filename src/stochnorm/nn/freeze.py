"""Freeze normalization layers: their statistics, their scale and shift, or both."""

from __future__ import annotations

from typing import Literal, TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.frozen import _FrozenNorm
from stochnorm.nn.select import Where, pick
from stochnorm.nn.surgery import FROZEN, STOCH, change_class, to_batch_norm

__all__ = ["freeze", "unfreeze"]

ModelT = TypeVar("ModelT", bound=nn.Module)

What = Literal["statistics", "affine", "both"]


def freeze(model: ModelT, *, what: What = "both", where: Where | None = None) -> ModelT:
    """Freeze normalization layers, in place.

    `statistics`: the layer normalizes by its moving statistics in training, too, and does not update them, also after
    `model.train()`. Its class changes as in [stochnorm.nn.convert][], which lists what is kept. `affine`: weight and
    bias no longer require a gradient. Their present gradient is dropped, so that an existing optimizer does not change
    them.

    A layer has either frozen statistics or StochNorm, and freezing wins in either order: it replaces StochNorm, and
    `convert` skips frozen layers. So `freeze(model, where=name_matches("layer1"))` has the same effect before and after
    `convert(model)`. Freezing `affine` can be combined with StochNorm and Batch-Instance layers.

    Args:
        model: Any module; a single BatchNorm works, too.
        what: `statistics`, `affine` or `both`.
        where: `where(name, module)` picks layers; see [stochnorm.nn.name_matches][]. None picks all.

    Returns:
        The model.

    Raises:
        ValueError: Unknown `what`, no layer to freeze, or the statistics of a Batch-Instance layer.
        TypeError: As for [stochnorm.nn.convert][].

    Example:
        >>> model = freeze(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), what="statistics").train()
        >>> model[1]
        FrozenNorm2d(8, ...)
    """
    _check(what)
    picked = pick(model, where, verb="freeze", frozen=True)
    if what != "affine":
        flags = [module.training for _, module in picked]
        change_class(picked, FROZEN, over=(STOCH,))
        for (_, module), flag in zip(picked, flags, strict=True):
            if isinstance(module, _FrozenNorm) and "_asked" not in module.__dict__:
                module._asked, module.training = flag, False
    if what != "statistics":
        _set_affine(picked, learn=False)
    return model


def unfreeze(model: ModelT, *, what: What = "both", where: Where | None = None) -> ModelT:
    """Undo [stochnorm.nn.freeze][], in place.

    Layers with frozen statistics become BatchNorm, in the mode that `train()` or `eval()` last requested. StochNorm
    that was frozen does not return: convert again. Weight and bias of all picked layers require a gradient.

    Args:
        model: Any module.
        what: `statistics`, `affine` or `both`.
        where: `where(name, module)` picks layers. None picks all.

    Returns:
        The model.

    Raises:
        ValueError: Unknown `what`, or no normalization layer.

    Example:
        >>> unfreeze(freeze(nn.Sequential(nn.BatchNorm2d(8))))[0]
        BatchNorm2d(8, ...)
    """
    _check(what)
    picked = pick(model, where, verb="unfreeze", frozen=True)
    if what != "affine":
        for _, module in picked:
            if isinstance(module, _FrozenNorm):
                to_batch_norm(module)
    if what != "statistics":
        _set_affine(picked, learn=True)
    return model


def _set_affine(picked: list[tuple[str, _BatchNorm]], *, learn: bool) -> None:
    for _, module in picked:
        for parameter in (module.weight, module.bias):
            if isinstance(parameter, nn.Parameter):
                parameter.requires_grad_(learn)
                if not learn:
                    parameter.grad = None


def _check(what: str) -> None:
    if what not in ("statistics", "affine", "both"):
        raise ValueError(f"what must be statistics, affine or both, got {what!r}")
