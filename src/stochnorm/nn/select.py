"""Choose normalization layers of a model: by a function, by a pattern of their names, or all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeGuard

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase

from stochnorm.nn.frozen import _FrozenNorm

__all__ = ["Where", "has_moving_statistics", "name_matches", "normalization_layers", "pick", "place"]

Where = Callable[[str, nn.Module], bool]

_WRAPPERS = {
    "DistributedDataParallel": "{verb} the model before wrapping it: DDP(model) after",
    "FullyShardedDataParallel": "{verb} the model before wrapping it",
    "OptimizedModule": "{verb} the model before torch.compile: torch.compile(model) after",
}


def has_moving_statistics(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """Return whether a module is a normalization layer with moving statistics, of any kind.

    Plain, converted, frozen and synchronized BatchNorm are; `track_running_stats=False` and GroupNorm are not.
    """
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def normalization_layers(model: nn.Module) -> list[_BatchNorm]:
    """Return the normalization layers with moving statistics, each once.

    Example:
        >>> normalization_layers(nn.Sequential(nn.BatchNorm2d(3), nn.GroupNorm(1, 3)))
        [BatchNorm2d(3, ...)]
    """
    return [module for module in model.modules() if has_moving_statistics(module)]


def name_matches(pattern: str) -> Where:
    r"""Return a `where` for the conversions: it picks the layers in whose name a regular expression is found.

    Names are dotted, as in `model.named_modules()`: `layer3.0.bn1`. The expression may match anywhere
    (`re.search`), so `layer[34]` picks two whole stages and `^bn1$` picks one layer.

    Args:
        pattern: A regular expression.

    Returns:
        A function of name and module. If it picks no layer, the conversion raises an error that lists some names.

    Raises:
        ValueError: The pattern is empty or not a regular expression.

    Example:
        >>> from torch import nn
        >>> where = name_matches(r"layer[34]")
        >>> [where(name, nn.BatchNorm2d(3)) for name in ("bn1", "layer1.0.bn1", "layer4.2.bn3")]
        [False, False, True]
    """
    if not pattern:
        raise ValueError("the pattern of layer names is empty; give a regular expression such as 'layer[34]'")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"the pattern of layer names {pattern!r} is not a regular expression ({error}); for example, 'layer[34]' "
            "finds layer3.0.bn1, and '.*' everything"
        ) from error
    return lambda name, module: expression.search(name) is not None


def pick(
    model: nn.Module, where: Where | None, *, verb: str = "convert", frozen: bool = False
) -> list[tuple[str, _BatchNorm]]:
    """Return the layers with moving statistics that `where` chooses, with their names, each once.

    Synchronized BatchNorm is never picked.

    Args:
        model: Any module.
        where: `where(name, module)`; None picks all.
        verb: The action that the layers are picked for, used in messages.
        frozen: Include frozen layers.

    Raises:
        ValueError: No layer is picked, or a lazy layer is not initialized.
        TypeError: The model, or a part of it, is wrapped (DDP, FSDP, `torch.compile`), or `where` is not a function.
    """
    if where is not None and not callable(where):
        raise TypeError(
            f"where must be a function of name and module, got {where!r}; stochnorm.nn.name_matches({where!r}) makes "
            "one from a pattern"
        )
    _check_convertible(model, verb)
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if has_moving_statistics(module)
        and not isinstance(module, nn.SyncBatchNorm)
        and (frozen or not isinstance(module, _FrozenNorm))
    ]
    picked = [(name, module) for name, module in layers if where is None or where(name, module)]
    if not picked:
        raise ValueError(f"nothing to {verb} in {type(model).__name__}: {_reason(model, [name for name, _ in layers])}")
    return picked


def place(name: str) -> str:
    """Return the words for the place of a layer in a message: ` at 'layer1.0.bn1'`."""
    return f" at {name!r}" if name else ""


def _check_convertible(model: nn.Module, verb: str) -> None:
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in _WRAPPERS:
            raise TypeError(f"cannot {verb} a {kind}{place(name)}: {_WRAPPERS[kind].format(verb=verb)}")
        if isinstance(module, _LazyNormBase):
            raise ValueError(
                f"cannot {verb} the lazy layer {kind}{place(name)}: it has no statistics yet. Run a forward pass first"
            )


def _reason(model: nn.Module, candidates: list[str]) -> str:
    if candidates:
        some = ", ".join(candidates[:: -(-len(candidates) // 6)])
        return f"where() picked none of its {len(candidates)} BatchNorm layers, among them {some}"
    names = {type(m).__name__ for m in model.modules()}
    kinds = sorted(name for name in names if re.search(r"^(?!Conv).*Norm(Act)?(\dd)?$", name))
    if kinds:
        return f"its normalization is {', '.join(kinds)}, without moving statistics to inherit or excluded"
    return "it has no normalization layer"
