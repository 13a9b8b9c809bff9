"""Turn the BatchNorm layers of a model into StochNorm and back, in place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase

from stochnorm.nn.layer import StochNorm1d, StochNorm2d, StochNorm3d, _StochNorm, check_p

__all__ = ["convert", "restore"]

ModelT = TypeVar("ModelT", bound=nn.Module)

_COUNTERPARTS: dict[type[nn.Module], type[_StochNorm]] = {
    nn.BatchNorm1d: StochNorm1d,
    nn.BatchNorm2d: StochNorm2d,
    nn.BatchNorm3d: StochNorm3d,
}

_WRAPPERS = {
    "DistributedDataParallel": "convert the model before wrapping it: DDP(stochnorm.convert(model))",
    "FullyShardedDataParallel": "convert the model before wrapping it",
    "OptimizedModule": "convert the model before torch.compile: torch.compile(stochnorm.convert(model))",
}


def convert(
    model: ModelT,
    *,
    p: float = 0.5,
    momentum: float | None = None,
    where: Callable[[str, nn.Module], bool] | None = None,
) -> ModelT:
    """Replace BatchNorm by StochNorm, in place.

    The layers stay the same objects and only change their class, so parameters, buffers (the pre-trained moving
    statistics), hooks, sharing, ``requires_grad``, ``training``, device, dtype and every optimizer's references are
    as before. A second call changes p. Layers without moving statistics to inherit (``track_running_stats=False``)
    and frozen or synchronized kinds (``FrozenBatchNorm2d``, ``SyncBatchNorm``) are left alone.

    Known are ``nn.BatchNorm1d/2d/3d`` and timm's ``BatchNormAct2d``, thereby every architecture of torchvision and
    timm that normalizes by batch.

    Args:
        model: Any module; a single BatchNorm works too.
        p: Probability that a channel is normalized by batch statistics, in [0, 1].
        momentum: Weight of the batch statistics in the moving ones (the paper's alpha). None keeps each layer's own.
        where: ``where(name, module)`` picks layers, with the name as in ``model.named_modules()``. None is all.

    Returns:
        The model.

    Raises:
        ValueError: p outside [0, 1]; no layer to convert; an uninitialized lazy layer.
        TypeError: The model, or a part of it, is wrapped (DDP, FSDP, ``torch.compile``) or a
            BatchNorm subclass of unknown forward pass.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> convert(model, p=0.5)[1]
        StochNorm2d(8, ..., p=0.5)
    """
    check_p(p)
    picked: list[tuple[nn.Module, type[_StochNorm]]] = []
    for name, module in _norm_layers(model):
        if where is None or where(name, module):
            picked.append((module, _counterpart(name, module)))
    if not picked:
        raise ValueError(_nothing_to_convert(model, where is not None))
    for module, counterpart in picked:
        module.__class__ = counterpart
        cast(_StochNorm, module).p = p
        if momentum is not None:
            cast(_StochNorm, module).momentum = momentum
    return model


def restore(model: ModelT) -> ModelT:
    """Replace StochNorm by plain BatchNorm again, in place, for deployment.

    The output in eval mode is bit for bit the same. Everything :func:`convert` keeps is kept; ``momentum`` stays what
    it was set to.

    Args:
        model: A module that :func:`convert` converted, or that was built of StochNorm layers.

    Returns:
        The model.

    Raises:
        ValueError: The model has no StochNorm layer.

    Example:
        >>> restore(nn.Sequential(StochNorm2d(8)))[0]
        BatchNorm2d(8, ...)
    """
    layers = [module for module in model.modules() if isinstance(module, _StochNorm)]
    if not layers:
        raise ValueError(f"nothing to restore: {type(model).__name__} has no StochNorm layer")
    for layer in layers:
        # The class after _StochNorm in the method resolution order is the one it was made from.
        layer.__class__ = type(layer).__mro__[type(layer).__mro__.index(_StochNorm) + 1]
        for attribute in ("_p", "_last_step"):
            layer.__dict__.pop(attribute, None)
    return model


def _norm_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The BatchNorm and StochNorm layers that hold moving statistics, each once."""
    for name, module in model.named_modules():
        if type(module).__name__ in _WRAPPERS:
            raise TypeError(f"cannot convert a {type(module).__name__}{_at(name)}: {_WRAPPERS[type(module).__name__]}")
        if isinstance(module, _LazyNormBase):
            raise ValueError(
                f"cannot convert the lazy layer {type(module).__name__}{_at(name)}: it has no statistics yet. Run a "
                "forward pass first"
            )
        if isinstance(module, _BatchNorm) and not _is_left_alone(module):
            yield name, module


def _is_left_alone(module: _BatchNorm) -> bool:
    return module.running_mean is None or isinstance(module, nn.SyncBatchNorm)


def _counterpart(name: str, module: nn.Module) -> type[_StochNorm]:
    kind = type(module)
    if isinstance(module, _StochNorm):
        return kind  # type: ignore[return-value]
    if kind in _COUNTERPARTS:
        return _COUNTERPARTS[kind]
    if kind.__module__.startswith("timm.") and kind.__name__ == "BatchNormAct2d":
        from stochnorm.nn.timm_act import StochNormAct2d

        return StochNormAct2d
    raise TypeError(
        f"cannot convert {kind.__module__}.{kind.__qualname__}{_at(name)}: a BatchNorm subclass whose forward pass "
        "stochnorm does not know. Leave it out with where=lambda name, module: ..."
    )


def _nothing_to_convert(model: nn.Module, picky: bool) -> str:
    names = {type(m).__name__ for m in model.modules()}
    kinds = sorted(name for name in names if re.search(r"^(?!Conv).*Norm(Act)?(\dd)?$", name))
    if picky and next(_norm_layers(model), None) is not None:
        reason = "where() picked none of its BatchNorm layers"
    elif kinds:
        reason = f"its normalization is {', '.join(kinds)}, without moving statistics to inherit or kept as it is"
    else:
        reason = "it has no normalization layer"
    return f"nothing to convert in {type(model).__name__}: {reason}"


def _at(name: str) -> str:
    return f" at {name!r}" if name else ""
