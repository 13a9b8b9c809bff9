"""Refuse functions that would replace a layer by another method without a word, or that fail on it without a reason."""

from __future__ import annotations

import sys
from typing import Any, NoReturn, cast

from torch import nn

__all__ = ["Converted", "RefusesSyncBatchNorm", "called_by", "recorded"]


class Converted(nn.Module):
    """What the layers of all conversions have in common: what other tools see of them.

    `torch.fx` records a call of the layer, as of a layer of PyTorch's own. TorchScript and `fuse_modules`, which know
    layers by their class, are refused with the way out, and so is timm's `freeze_batch_norm_2d`.
    """

    _is_lost_when_frozen = True

    def __prepare_scriptable__(self) -> NoReturn:
        raise TypeError(
            f"torch.jit.script cannot compile {type(self).__name__}: call stochnorm.restore(model) first, which does "
            "not change a model in eval mode; torch.jit.trace and torch.export take the model as it is"
        )

    @property
    def affine(self) -> bool:  # type: ignore[override, unused-ignore]
        """Whether the layer has a scale and a shift."""
        if self._is_lost_when_frozen and called_by("freeze_batch_norm_2d"):
            raise TypeError(
                f"freeze_batch_norm_2d would replace {type(self).__name__} by a frozen BatchNorm, and unfreezing that "
                "by a plain one: call stochnorm.nn.freeze(model, where=...) instead, or stochnorm.restore(model) first"
            )
        return cast(bool, self.__dict__["affine"])

    @affine.setter
    def affine(self, affine: bool) -> None:
        self.__dict__["affine"] = affine

    @property
    def parametrizations(self) -> nn.Module:
        """Those of `torch.nn.utils.parametrize`, if any. `fuse_modules` asks for them before all else."""
        if called_by("fuse_known_modules", within=4):
            raise TypeError(f"fuse_modules cannot fuse {type(self).__name__}: call stochnorm.restore(model) first")
        if "parametrizations" not in self._modules:
            raise AttributeError("parametrizations")
        return cast(nn.Module, self._modules["parametrizations"])


def called_by(function: str, within: int = 1) -> bool:
    """Return whether a function with this name called what asks, directly or by few others between."""
    frame = sys._getframe(1).f_back
    for _ in range(within):
        if frame is None:
            return False
        if frame.f_code.co_name == function:
            return True
        frame = frame.f_back
    return False


def recorded(layer: nn.Module, input: Any) -> Any:
    """Return the recorded call of a layer if an input is one of `torch.fx`'s; None otherwise."""
    tracer = getattr(input, "tracer", None)
    if tracer is None or not hasattr(tracer, "path_of_module"):
        return None
    name = tracer.path_of_module(layer)
    return tracer.create_proxy("call_module", name, (input,), {}) if name else None


class RefusesSyncBatchNorm:
    """An attribute that is missing, except for `convert_sync_batchnorm`, which it stops.

    The functions of that name in PyTorch and timm, and Lightning's `sync_batchnorm=True`, which calls the first, make a
    SyncBatchNorm of every subclass of BatchNorm, without its method. They ask each layer for `qconfig`, an attribute of
    quantization. Everyone else finds no such attribute, as on other layers.

    Args:
        method: Name of the layer's method.
        remedy: What to do instead.
    """

    def __init__(self, method: str, remedy: str) -> None:
        self._method, self._remedy = method, remedy

    def __get__(self, module: object, owner: type | None = None) -> NoReturn:
        if module is not None and called_by("convert_sync_batchnorm"):
            raise TypeError(
                f"convert_sync_batchnorm would replace a layer of {self._method} by SyncBatchNorm, which is another "
                f"method: {self._remedy}"
            )
        raise AttributeError("qconfig")
