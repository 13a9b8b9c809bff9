"""Fold BatchNorm into the convolutions before it, for a network that is only evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from stochnorm.nn.cpu.accelerate import plain_class
from stochnorm.nn.select import has_moving_statistics
from stochnorm.nn.timm_names import is_timms

__all__ = ["fold_batch_norm"]


def fold_batch_norm(model: nn.Module, *, keep: Collection[str] = ()) -> int:
    """Move the scale and shift of BatchNorm into the convolutions before it, in place; saves a pass over each map.

    In eval mode the network computes the same as before, to rounding; its training behavior changes. A BatchNorm with
    moving statistics (or timm's `BatchNormAct2d`, whose activation stays) is folded if it is the only reader of the
    output of one `nn.Conv2d` (or timm's `Conv2dSame`) that runs once. Derived classes are skipped. `torch.fx` finds the
    pairs; a network that it cannot trace is left as it is.

    Args:
        model: Any module in eval mode. The folded layers become `nn.Identity` or their activation, under the same
            names.
        keep: Names of modules whose outputs must not change, as in `model.named_modules()`. Folding keeps the output of
            the normalization layer, but changes the output of the convolution and of a block that ends in it. Layers
            with hooks are always skipped.

    Returns:
        The number of folded layers.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> fold_batch_norm(model), model[1]
        (1, Identity())
    """
    folded = 0
    for conv_name, norm_name in list(_pairs(model)):
        conv: Any = model.get_submodule(conv_name)
        norm: Any = model.get_submodule(norm_name)
        if _hooked(conv, norm) or any(_looks_between(name, conv_name, norm_name) for name in keep):
            continue
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        model.set_submodule(norm_name, getattr(norm, "act", nn.Identity()))
        folded += 1
    return folded


class _Tracer(fx.Tracer):
    """A tracer that does not trace into convolutions and normalization, which timm derives from PyTorch's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (nn.Conv2d, nn.BatchNorm2d)) or super().is_leaf_module(m, module_qualified_name)


def _pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of convolutions and of their only reader, a BatchNorm; each of the two is called once."""
    try:
        graph = _Tracer().trace(model)
    except Exception:  # the model's code may raise any error when it gets no tensors
        return
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and len(node.args) == 1 else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        conv, norm = str(before.target), str(node.target)
        if (
            calls[conv] == calls[norm] == 1
            and _is_conv(model.get_submodule(conv))
            and _is_norm(model.get_submodule(norm))
        ):
            yield conv, norm


def _looks_between(kept: str, conv: str, norm: str) -> bool:
    """Return whether a kept module has the convolution's output (it is it, or ends in it) or is inside the norm."""
    ends_in_conv = f"{conv}.".startswith(f"{kept}.") and not norm.startswith(f"{kept}.")
    return ends_in_conv or kept.startswith(f"{norm}.")


def _is_conv(module: nn.Module) -> bool:
    """Return whether a module is a convolution with a known forward pass; timm's StdConv2d changes its weight."""
    kind = plain_class(module)
    return kind is nn.Conv2d or is_timms(kind, "Conv2dSame")


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module is a BatchNorm with moving statistics and a known forward pass."""
    kind = plain_class(module)
    return has_moving_statistics(module) and (kind is nn.BatchNorm2d or is_timms(kind, "BatchNormAct2d"))


def _hooked(*modules: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)
