"""FrozenNorm1d, FrozenNorm2d, FrozenNorm3d: BatchNorm that uses its moving statistics in training, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.refusal import Converted, RefusesSyncBatchNorm, recorded

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FrozenNorm1d", "FrozenNorm2d", "FrozenNorm3d"]


class _FrozenNorm(Converted, _BatchNorm):
    """Shared code of the three layers: `training` stays False, so that the parent's forward is that of inference."""

    qconfig = RefusesSyncBatchNorm(
        "frozen statistics", "call stochnorm.nn.freeze after it, as frozen statistics need no synchronization"
    )
    _is_lost_when_frozen = False
    # The mode that train() or eval() last requested; unfreezing restores it.
    _asked = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.train()

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor) and (call := recorded(self, input)) is not None:
            return cast(Tensor, call)
        return super().forward(input)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)  # children, such as the dropout of timm's layers, follow the mode
        self._asked = mode
        self.training = False
        return self


_DOCSTRING = r"""BatchNorm with frozen statistics: training and inference normalize by the moving statistics.

$$ y = \gamma \frac{{x - \tilde\mu}}{{\sqrt{{\tilde\sigma^2 + \epsilon}}}} + \beta $$

No forward pass updates the moving statistics. Scale and shift are parameters as in `torch.nn.BatchNorm{n}d`, and the
state dict is the same. [stochnorm.nn.freeze][] makes such layers and [stochnorm.nn.unfreeze][] makes them BatchNorm
again. Training and inference do not differ.

Args:
    *args: As for `torch.nn.BatchNorm{n}d`, like the keyword arguments.

Shape:
    - Input: {shape}.
    - Output: the input's shape and dtype.
"""


class FrozenNorm1d(_FrozenNorm, nn.BatchNorm1d):
    __doc__ = _DOCSTRING.format(n=1, shape="(b, c) or (b, c, l)")


class FrozenNorm2d(_FrozenNorm, nn.BatchNorm2d):
    __doc__ = _DOCSTRING.format(n=2, shape="(b, c, h, w)")


class FrozenNorm3d(_FrozenNorm, nn.BatchNorm3d):
    __doc__ = _DOCSTRING.format(n=3, shape="(b, c, d, h, w)")
