"""Fold BatchNorm into the convolutions before it, for a network that is only evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from stochnorm.nn.cpu.accelerate import plain_class
from stochnorm.nn.timm_names import is_timms

__all__ = ["fold_batch_norm"]


def fold_batch_norm(model: nn.Module, *, keep: Collection[str] = ()) -> int:
    """Give convolutions the scale and shift of the BatchNorm behind them, in place: one pass less over each map.

    In evaluation the network computes what it computed before, to rounding; it can no longer be trained as it was.
    Folded is a BatchNorm of moving statistics (timm's ``BatchNormAct2d`` too, of which the activation stays) that alone
    takes what one call of one ``nn.Conv2d`` (or timm's ``Conv2dSame``) puts out; derived classes are left alone.
    ``torch.fx`` finds these; a network that it cannot follow is left as it is.

    Args:
        model: In eval mode. The folded layers become ``nn.Identity`` or their activation, under the same names.
        keep: Modules whose outputs must stay what they are, as in ``model.named_modules()``. (What a folded layer puts
            out does; what its convolution puts out does not, nor what a block does that ends in the convolution.)
            Layers with hooks are left alone anyway.

    Returns:
        How many layers were folded.

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
    """Does not look into convolutions and normalization, which timm derives from PyTorch's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (nn.Conv2d, nn.BatchNorm2d)) or super().is_leaf_module(m, module_qualified_name)


def _pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of convolutions and of the BatchNorm that alone follows, each called once."""
    try:
        graph = _Tracer().trace(model)
    except Exception:  # a model's own code may raise anything when it is given no tensors
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
    """Whether a module puts out what the convolution does, being it or ending in it, or is a part of the norm."""
    ends_in_conv = f"{conv}.".startswith(f"{kept}.") and not norm.startswith(f"{kept}.")
    return ends_in_conv or kept.startswith(f"{norm}.")


# Of known forward pass: a derived class may make something else of its weight, such as timm's StdConv2d.


def _is_conv(module: nn.Module) -> bool:
    kind = plain_class(module)
    return kind is nn.Conv2d or is_timms(kind, "Conv2dSame")


def _is_norm(module: nn.Module) -> bool:
    """By moving statistics."""
    kind = plain_class(module)
    return (kind is nn.BatchNorm2d or is_timms(kind, "BatchNormAct2d")) and module.running_mean is not None


def _hooked(*modules: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)
