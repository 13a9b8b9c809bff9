"""FrozenNorm1d, FrozenNorm2d, FrozenNorm3d: BatchNorm that normalizes by its moving statistics in training too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FrozenNorm1d", "FrozenNorm2d", "FrozenNorm3d"]


class _FrozenNorm(_BatchNorm):
    """What the three layers share: ``training`` stays False, so that the parent's forward is that of inference."""

    # What train() and eval() last asked for; unfreezing goes back to it.
    _asked = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.train()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)  # children, such as the dropout of timm's layers, do as they are told
        self._asked = mode
        self.training = False
        return self


_DOCSTRING = """BatchNorm with frozen statistics: normalizes by the moving ones in training too, and keeps them.

Scale and shift are parameters as ever. A ``torch.nn.BatchNorm{n}d`` with the same state dict; made by
:func:`stochnorm.nn.freeze`, undone by :func:`stochnorm.nn.unfreeze`.
"""


class FrozenNorm1d(_FrozenNorm, nn.BatchNorm1d):
    __doc__ = _DOCSTRING.format(n=1)


class FrozenNorm2d(_FrozenNorm, nn.BatchNorm2d):
    __doc__ = _DOCSTRING.format(n=2)


class FrozenNorm3d(_FrozenNorm, nn.BatchNorm3d):
    __doc__ = _DOCSTRING.format(n=3)
