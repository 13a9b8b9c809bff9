"""Keep the normalization as pre-training left it: its statistics, its scale and shift, or both."""

from __future__ import annotations

from typing import Literal, TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.frozen import _FrozenNorm
from stochnorm.nn.surgery import FROZEN, STOCH, Where, change_class, pick, to_batch_norm

__all__ = ["freeze", "unfreeze"]

ModelT = TypeVar("ModelT", bound=nn.Module)

What = Literal["statistics", "affine", "both"]


def freeze(model: ModelT, *, what: What = "both", where: Where | None = None) -> ModelT:
    """Freeze normalization layers, in place.

    ``statistics``: the layer normalizes by its moving statistics in training too and does not update them, whatever
    ``model.train()`` says. It changes its class as in :func:`stochnorm.nn.convert` and keeps all that is kept there.
    ``affine``: weight and bias no longer require a gradient; the gradient they hold is dropped, so that an optimizer
    made before does not move them.

    Frozen statistics and StochNorm exclude each other in a layer, and freezing wins in either order: it replaces
    StochNorm, and ``convert`` leaves frozen layers alone. So ``freeze(model, where=name_matches("layer1"))`` before or
    after ``convert(model)`` is the same. Freezing ``affine`` goes with StochNorm and with Batch-Instance layers.

    Args:
        model: Any module; a single BatchNorm works too.
        what: ``statistics``, ``affine`` or ``both``.
        where: ``where(name, module)`` picks layers; see :func:`stochnorm.nn.name_matches`. None is all.

    Returns:
        The model.

    Raises:
        ValueError: Unknown ``what``; no layer to freeze; the statistics of a Batch-Instance layer.
        TypeError: As for :func:`stochnorm.nn.convert`.

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
    """Undo :func:`freeze`, in place.

    Layers with frozen statistics become BatchNorm (StochNorm that was frozen does not come back: convert again), in
    the mode that ``train()`` or ``eval()`` last asked for. Weight and bias of all picked layers require a gradient.

    Args:
        model: Any module.
        what: ``statistics``, ``affine`` or ``both``.
        where: ``where(name, module)`` picks layers. None is all.

    Returns:
        The model.

    Raises:
        ValueError: Unknown ``what``; no normalization layer.

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
