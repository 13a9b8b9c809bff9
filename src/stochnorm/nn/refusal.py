"""Refuse functions that would replace a layer by another method without a word."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["RefusesSyncBatchNorm"]


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
        if module is not None and sys._getframe(1).f_code.co_name == "convert_sync_batchnorm":
            raise TypeError(
                f"convert_sync_batchnorm would replace a layer of {self._method} by SyncBatchNorm, which is another "
                f"method: {self._remedy}"
            )
        raise AttributeError("qconfig")
