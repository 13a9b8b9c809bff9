"""Let a model run through the compiled kernels on CPUs, in place."""

from __future__ import annotations

from typing import Any

from torch import nn

from stochnorm.nn.cpu import depthwise, kernel
from stochnorm.nn.timm_names import is_timms

__all__ = ["accelerate", "plain_class"]


def accelerate(model: nn.Module, *, normalization: bool = True, enabled: bool = True) -> int:
    """Let a model's layers run through the compiled kernels, in place: a step of plain BatchNorm gets faster, too.

    The objects stay, and with them parameters, state-dict keys, hooks, sharing and optimizer links. A layer computes
    what it computed before, to rounding; it takes the kernel for what that was made for (plain tensors on CPUs), else
    PyTorch's own.

    Args:
        model: Any module. Changed are its ``nn.Conv2d`` and timm's ``Conv2dSame`` of one kernel a channel, up to 7 x 7,
            stride 1 or 2, without dilation; and timm's ``BatchNormAct2d``, which then activates in the same pass.
        normalization: False leaves the latter alone. Conversions (:func:`stochnorm.convert` and its like) know them
            only as they are: convert first.
        enabled: False makes all of them again what they were.

    Returns:
        How many layers it changed; 0 where the kernels were not built.

    Example:
        >>> from stochnorm.nn.cpu import depthwise
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8))
        >>> accelerate(model) == int(depthwise.library is not None)
        True
    """
    changed = 0
    for module in model.modules():
        kind = _counterpart(module, normalization) if enabled else plain_class(module)
        if kind is not type(module):
            module.__class__ = kind
            changed += 1
    return changed


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class of a layer, or the one that it had before it was accelerated."""
    kind: type[nn.Module] = getattr(type(module), "_accelerates", type(module))
    return kind


def _counterpart(module: nn.Module, normalization: bool) -> type[nn.Module]:
    """The class that a layer is to have."""
    kind = type(module)
    if normalization and is_timms(kind, "BatchNormAct2d"):
        from stochnorm.nn.cpu.fused_norm import FusedBatchNormAct2d

        return FusedBatchNormAct2d if kernel.library is not None else kind
    same = is_timms(kind, "Conv2dSame")
    if depthwise.library is None or not (kind is nn.Conv2d or same) or not _is_depthwise(module):
        return kind
    if same:
        from stochnorm.nn.cpu.depthwise_same import DepthwiseConv2dSame

        return DepthwiseConv2dSame
    return depthwise.DepthwiseConv2d


def _is_depthwise(conv: Any) -> bool:
    """Whether a convolution is one that the kernel can do."""
    return (
        1 < conv.groups == conv.in_channels == conv.out_channels
        and conv.stride in ((1, 1), (2, 2))
        and conv.dilation == (1, 1)
        and max(conv.kernel_size) <= depthwise.MOST
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )
