"""Let a model run through the compiled CPU kernels, in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from stochnorm.nn.cpu import depthwise, kernel
from stochnorm.nn.timm_names import is_timms

__all__ = ["accelerate", "accelerate_convolutions", "decelerate", "plain_class"]


def accelerate(model: nn.Module) -> int:
    """Let a model's layers run through the compiled kernels, in place; plain BatchNorm gets faster, too.

    The objects stay, and with them parameters, state-dict keys, hooks, sharing and optimizer links. A layer computes
    the same as before, to rounding. It uses the kernel for plain tensors on CPUs and PyTorch's own code otherwise.

    Convert first: conversions ([stochnorm.convert][] and the others) do not know timm's accelerated normalization.

    Args:
        model: Any module. Layers that change: those of [stochnorm.nn.cpu.accelerate.accelerate_convolutions][], and
            timm's `BatchNormAct2d`, which then activates in the same pass, also as a StochNorm layer at p = 1.

    Returns:
        The number of layers that changed; 0 if the kernels were not built.

    Example:
        >>> from stochnorm.nn.cpu import depthwise
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8))
        >>> accelerate(model) == int(depthwise.library is not None)
        True
    """
    return _change(model, lambda module: _fused(module) or _depthwise(module))


def accelerate_convolutions(model: nn.Module) -> int:
    """Let only a model's depthwise convolutions run through the compiled kernel, in place; see `accelerate`.

    Args:
        model: Any module. Layers that change: `nn.Conv2d` and timm's `Conv2dSame` with one kernel per channel, up to
            7 x 7, stride 1 or 2, without dilation.

    Returns:
        The number of layers that changed; 0 if the kernel was not built.
    """
    return _change(model, _depthwise)


def decelerate(model: nn.Module) -> int:
    """Make all accelerated layers plain ones again, in place.

    Returns:
        The number of layers that changed.
    """
    return _change(model, plain_class)


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of a layer, or the class that it had before it was accelerated."""
    kind: type[nn.Module] = getattr(type(module), "_accelerates", type(module))
    return kind


def _change(model: nn.Module, to: Callable[[nn.Module], type[nn.Module] | None]) -> int:
    """Give each layer the class that `to` returns, if any; return the number of layers that changed."""
    changed = 0
    for module in model.modules():
        kind = to(module)
        if kind is not None and kind is not type(module):
            module.__class__ = kind
            changed += 1
    return changed


def _fused(module: nn.Module) -> type[nn.Module] | None:
    """Return the class that normalizes and activates in one pass; None if a layer has none."""
    kind = type(module)
    stochastic = (kind.__module__, kind.__name__) == ("stochnorm.nn.timm_layers", "StochNormAct2d")
    if kernel.library is None or not (stochastic or is_timms(kind, "BatchNormAct2d")):
        return None
    from stochnorm.nn.cpu.fused_norm import FusedBatchNormAct2d, FusedStochNormAct2d

    return FusedStochNormAct2d if stochastic else FusedBatchNormAct2d


def _depthwise(module: nn.Module) -> type[nn.Module] | None:
    """Return the class that runs through the compiled convolution; None if a layer has none."""
    kind = type(module)
    same = is_timms(kind, "Conv2dSame")
    if depthwise.library is None or not (kind is nn.Conv2d or same) or not _is_depthwise(module):
        return None
    if same:
        from stochnorm.nn.cpu.depthwise_same import DepthwiseConv2dSame

        return DepthwiseConv2dSame
    return depthwise.DepthwiseConv2d


def _is_depthwise(conv: Any) -> bool:
    """Return whether the kernel can compute a convolution."""
    return (
        1 < conv.groups == conv.in_channels == conv.out_channels
        and conv.stride in ((1, 1), (2, 2))
        and conv.dilation == (1, 1)
        and max(conv.kernel_size) <= depthwise.MOST
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )
