"""Change the class of normalization layers, in place: the basis of every conversion."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.batch_instance import (
    BatchInstanceNorm1d,
    BatchInstanceNorm2d,
    BatchInstanceNorm3d,
    _BatchInstanceNorm,
)
from stochnorm.nn.frozen import FrozenNorm1d, FrozenNorm2d, FrozenNorm3d, _FrozenNorm
from stochnorm.nn.select import place
from stochnorm.nn.stochastic import StochNorm1d, StochNorm2d, StochNorm3d, _StochNorm
from stochnorm.nn.timm_names import is_timms

__all__ = ["BATCH_INSTANCE", "FROZEN", "STOCH", "Family", "change_class", "family_of", "to_batch_norm"]


class Family(NamedTuple):
    """The layers of one method; each is a subclass of `mixin` and of the BatchNorm it replaces, in this order."""

    mixin: type[_BatchNorm]
    layers: tuple[type[_BatchNorm], ...]
    attributes: tuple[str, ...]
    """Attributes that BatchNorm does not have; removed when the layer becomes BatchNorm again."""


STOCH = Family(
    _StochNorm,
    (StochNorm1d, StochNorm2d, StochNorm3d),
    ("_p", "_p_tensor", "_last_step", "_held", "_given", "_sync"),
)
BATCH_INSTANCE = Family(_BatchInstanceNorm, (BatchInstanceNorm1d, BatchInstanceNorm2d, BatchInstanceNorm3d), ("rho",))
FROZEN = Family(_FrozenNorm, (FrozenNorm1d, FrozenNorm2d, FrozenNorm3d), ("_asked",))


def family_of(module: nn.Module) -> Family | None:
    """Return the family of a layer; None for BatchNorm and other modules."""
    return next((f for f in (STOCH, BATCH_INSTANCE, FROZEN) if isinstance(module, f.mixin)), None)


def change_class(picked: list[tuple[str, _BatchNorm]], to: Family, *, over: tuple[Family, ...] = ()) -> None:
    """Convert each layer to a family, in place: all of them or, after an error, none.

    The objects stay, and with them parameters, buffers, hooks, sharing, flags and optimizer links.

    Args:
        picked: Names and layers.
        to: The new family. Layers that are in it do not change.
        over: Other families that may be replaced; layers of further families must be restored first.

    Raises:
        ValueError: A layer is in another family.
        TypeError: A BatchNorm subclass with an unknown forward pass.
    """
    kinds = []
    for name, module in picked:
        family = family_of(module)
        if family not in (None, to, *over):
            raise ValueError(
                f"cannot turn {type(module).__name__}{place(name)} into {to.layers[1].__name__}: a layer follows one "
                "method. Call restore(model) first, or exclude it with where"
            )
        kinds.append(type(module) if family is to else _counterpart(name, module, to))
    for (_, module), kind in zip(picked, kinds, strict=True):
        if not isinstance(module, to.mixin):
            to_batch_norm(module)
            module.__class__ = kind


def to_batch_norm(module: _BatchNorm) -> None:
    """Convert a layer of any family back to the BatchNorm it was made from, in place."""
    family = family_of(module)
    if isinstance(module, _FrozenNorm):
        module.training = module._asked
    if family is not None:
        module.__class__ = _plain_class(type(module), family)
        for attribute in family.attributes:
            for held in (module.__dict__, module._parameters):
                held.pop(attribute, None)


def _plain_class(kind: type[_BatchNorm], family: Family) -> type[_BatchNorm]:
    """Return the class that a layer was made from: the next BatchNorm after the mixin in the order of its classes."""
    after = kind.__mro__[kind.__mro__.index(family.mixin) + 1 :]
    plain = next(plain for plain in after if issubclass(plain, _BatchNorm))
    return getattr(plain, "_accelerates", plain)


def _counterpart(name: str, module: _BatchNorm, to: Family) -> type[_BatchNorm]:
    family = family_of(module)
    own = type(module)
    kind = getattr(own, "_fuses", own) if family is None else _plain_class(own, family)
    layers = to.layers
    if is_timms(kind, "BatchNormAct2d"):
        from stochnorm.nn.timm_layers import LAYERS

        layers = LAYERS
    for layer in layers:
        if issubclass(layer, to.mixin) and _plain_class(layer, to) is kind:
            return layer
    raise TypeError(
        f"cannot convert {kind.__module__}.{kind.__qualname__}{place(name)}: a BatchNorm subclass with a forward "
        "pass that stochnorm does not know. Exclude it with where=lambda name, module: ..."
    )
