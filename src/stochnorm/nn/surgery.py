"""Change the class of a model's normalization layers, in place: the one primitive of every conversion."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase

from stochnorm.nn.batch_instance import (
    BatchInstanceNorm1d,
    BatchInstanceNorm2d,
    BatchInstanceNorm3d,
    _BatchInstanceNorm,
)
from stochnorm.nn.frozen import FrozenNorm1d, FrozenNorm2d, FrozenNorm3d, _FrozenNorm
from stochnorm.nn.stochastic import StochNorm1d, StochNorm2d, StochNorm3d, _StochNorm
from stochnorm.nn.timm_names import is_timms

__all__ = ["BATCH_INSTANCE", "FROZEN", "STOCH", "Family", "Where", "change_class", "family_of", "pick", "to_batch_norm"]

Where = Callable[[str, nn.Module], bool]


class Family(NamedTuple):
    """The layers of one method, each a subclass of ``mixin`` and of the BatchNorm it replaces, in this order."""

    mixin: type[_BatchNorm]
    layers: tuple[type[_BatchNorm], ...]
    attributes: tuple[str, ...]
    """What an instance has beyond BatchNorm's own; goes when the layer becomes BatchNorm again."""


STOCH = Family(_StochNorm, (StochNorm1d, StochNorm2d, StochNorm3d), ("_p", "_last_step", "_held"))
BATCH_INSTANCE = Family(_BatchInstanceNorm, (BatchInstanceNorm1d, BatchInstanceNorm2d, BatchInstanceNorm3d), ("rho",))
FROZEN = Family(_FrozenNorm, (FrozenNorm1d, FrozenNorm2d, FrozenNorm3d), ("_asked",))

_WRAPPERS = {
    "DistributedDataParallel": "{verb} the model before wrapping it: DDP(model) after",
    "FullyShardedDataParallel": "{verb} the model before wrapping it",
    "OptimizedModule": "{verb} the model before torch.compile: torch.compile(model) after",
}


def family_of(module: nn.Module) -> Family | None:
    """The family of a layer; None for BatchNorm and all else."""
    return next((f for f in (STOCH, BATCH_INSTANCE, FROZEN) if isinstance(module, f.mixin)), None)


def pick(
    model: nn.Module, where: Where | None, *, verb: str = "convert", frozen: bool = False
) -> list[tuple[str, _BatchNorm]]:
    """The layers with moving statistics that ``where`` chooses, with their names, each once.

    Args:
        model: Any module.
        where: ``where(name, module)``; None is all.
        verb: What is to be done to them, for messages.
        frozen: Frozen layers too; otherwise they are left alone.

    Raises:
        ValueError: There is none; a lazy layer is uninitialized.
        TypeError: The model, or a part of it, is wrapped (DDP, FSDP, ``torch.compile``); ``where`` is no function.
    """
    if where is not None and not callable(where):
        raise TypeError(
            f"where is a function of name and module, got {where!r}; stochnorm.nn.name_matches({where!r}) makes one "
            "of a pattern"
        )
    layers = [(n, m) for n, m in _norm_layers(model, verb) if frozen or not isinstance(m, _FrozenNorm)]
    picked = [(name, module) for name, module in layers if where is None or where(name, module)]
    if not picked:
        raise ValueError(f"nothing to {verb} in {type(model).__name__}: {_reason(model, [name for name, _ in layers])}")
    return picked


def change_class(picked: list[tuple[str, _BatchNorm]], to: Family, *, over: tuple[Family, ...] = ()) -> None:
    """Make each layer one of a family; all of them or, after an error, none.

    The objects stay, and with them parameters, buffers, hooks, sharing, flags and optimizer links.

    Args:
        picked: Layers, by name.
        to: The family. Its own layers stay what they are.
        over: Families whose layers may become it; those of others must be restored first.

    Raises:
        ValueError: A layer is of another family.
        TypeError: A BatchNorm subclass of unknown forward pass.
    """
    kinds = []
    for name, module in picked:
        family = family_of(module)
        if family not in (None, to, *over):
            raise ValueError(
                f"cannot turn {type(module).__name__}{_at(name)} into {to.layers[1].__name__}: a layer follows one "
                "method. Call restore(model) first, or leave it out with where"
            )
        kinds.append(type(module) if family is to else _counterpart(name, module, to))
    for (_, module), kind in zip(picked, kinds, strict=True):
        if not isinstance(module, to.mixin):
            to_batch_norm(module)
            module.__class__ = kind


def to_batch_norm(module: _BatchNorm) -> None:
    """Make a layer of any family the BatchNorm it was made from."""
    family = family_of(module)
    if isinstance(module, _FrozenNorm):
        module.training = module._asked
    if family is not None:
        module.__class__ = _plain_class(type(module), family)
        for attribute in family.attributes:
            for held in (module.__dict__, module._parameters):
                held.pop(attribute, None)


def _norm_layers(model: nn.Module, verb: str) -> Iterator[tuple[str, _BatchNorm]]:
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in _WRAPPERS:
            raise TypeError(f"cannot {verb} a {kind}{_at(name)}: {_WRAPPERS[kind].format(verb=verb)}")
        if isinstance(module, _LazyNormBase):
            raise ValueError(
                f"cannot {verb} the lazy layer {kind}{_at(name)}: it has no statistics yet. Run a forward pass first"
            )
        tracks = isinstance(module, _BatchNorm) and module.running_mean is not None
        if tracks and not isinstance(module, nn.SyncBatchNorm):
            yield name, module


def _plain_class(kind: type[_BatchNorm], family: Family) -> type[_BatchNorm]:
    """The class after the family's mixin in the method resolution order is the one it was made from."""
    plain: type[_BatchNorm] = kind.__mro__[kind.__mro__.index(family.mixin) + 1]
    return plain


def _counterpart(name: str, module: _BatchNorm, to: Family) -> type[_BatchNorm]:
    family = family_of(module)
    kind = type(module) if family is None else _plain_class(type(module), family)
    layers = to.layers
    if is_timms(kind, "BatchNormAct2d"):
        from stochnorm.nn.timm_layers import LAYERS

        layers = LAYERS
    for layer in layers:
        if issubclass(layer, to.mixin) and _plain_class(layer, to) is kind:
            return layer
    raise TypeError(
        f"cannot convert {kind.__module__}.{kind.__qualname__}{_at(name)}: a BatchNorm subclass whose forward pass "
        "stochnorm does not know. Leave it out with where=lambda name, module: ..."
    )


def _reason(model: nn.Module, candidates: list[str]) -> str:
    if candidates:
        some = ", ".join(candidates[:: -(-len(candidates) // 6)])
        return f"where() picked none of its BatchNorm layers, {len(candidates)} in all, among them {some}"
    names = {type(m).__name__ for m in model.modules()}
    kinds = sorted(name for name in names if re.search(r"^(?!Conv).*Norm(Act)?(\dd)?$", name))
    if kinds:
        return f"its normalization is {', '.join(kinds)}, without moving statistics to inherit or kept as it is"
    return "it has no normalization layer"


def _at(name: str) -> str:
    return f" at {name!r}" if name else ""
