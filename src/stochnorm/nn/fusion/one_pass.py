"""A normalization layer with the residual addition and the activation behind it, in one pass on GPUs."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.nn.batch_instance import (
    BatchInstanceNorm1d,
    BatchInstanceNorm2d,
    BatchInstanceNorm3d,
    _BatchInstanceNorm,
)
from stochnorm.nn.cuda.fused import fits as _fits
from stochnorm.nn.frozen import FrozenNorm1d, FrozenNorm2d, FrozenNorm3d
from stochnorm.nn.functional import check_values_per_channel, frozen_norm, stoch_norm_
from stochnorm.nn.stochastic import StochNorm1d, StochNorm2d, StochNorm3d, _StochNorm

__all__ = ["in_one_pass", "is_normalization", "normalize", "on_gpu", "untouched"]

_KNOWN = {
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(StochNorm1d, StochNorm2d, StochNorm3d),
    *(FrozenNorm1d, FrozenNorm2d, FrozenNorm3d),
    *(BatchInstanceNorm1d, BatchInstanceNorm2d, BatchInstanceNorm3d),
}
_TIMMS = {"BatchNormAct2d": "timm.", "OnePassBatchNormAct2d": "stochnorm.nn.fusion.timm_blocks"} | dict.fromkeys(
    ("StochNormAct2d", "FrozenNormAct2d", "BatchInstanceNormAct2d"), "stochnorm.nn.timm_layers"
)


def normalize(
    layer: nn.Module, input: Tensor, residual: Tensor | None = None, activation: nn.Module | None = None
) -> Tensor:
    """Return `activation(layer(input) + residual)`, in one pass where a kernel can.

    On CPUs, under `torch.compile`, and where a hook must run between the steps, the modules are called one after
    another.

    Args:
        layer: A normalization layer of any kind, timm's with a built-in activation included; another module is called.
        input: The feature map (b, c, ...).
        residual: Added to the normalized map, of its shape.
        activation: Module applied last.

    Example:
        >>> x = torch.randn(8, 3, 4, 4)
        >>> layer, relu = nn.BatchNorm2d(3), nn.ReLU()
        >>> torch.equal(normalize(layer, x, x, relu), relu(layer(x) + x))
        True
    """
    if on_gpu(input) and untouched(layer):
        output = in_one_pass(layer, input, residual, activation)
        if output is not None:
            return output
    output = layer(input)
    if residual is not None:
        output = output + residual
    return output if activation is None else cast(Tensor, activation(output))


def in_one_pass(
    layer: nn.Module, input: Tensor, residual: Tensor | None = None, activation: nn.Module | None = None
) -> Tensor | None:
    """Return what `normalize` does, from one pass; None if the modules must be called one after another.

    A layer's own hooks are not looked at, so its forward pass can call this.
    """
    if not (on_gpu(input) and is_normalization(layer)):
        return None
    own = getattr(layer, "act", None)  # timm's layers have one, behind a `drop`
    if own is not None:
        if type(layer.drop) is not nn.Identity or not untouched(layer.drop):
            return None
        if type(own) is not nn.Identity:
            if residual is not None or activation is not None:
                return None  # they come behind its own activation
            activation = own
        elif not untouched(own):
            return None
    if activation is not None and not untouched(activation):
        return None
    if isinstance(layer, _BatchInstanceNorm):
        layer._check_input_dim(input)  # type: ignore[no-untyped-call]
        return layer._mixed_forward(input, residual, activation)
    return _by_statistics(cast(_BatchNorm, layer), input, residual, activation)


def _by_statistics(
    layer: _BatchNorm, input: Tensor, residual: Tensor | None, activation: nn.Module | None
) -> Tensor | None:
    """Normalize by batch statistics, by moving ones, or, in StochNorm, by both."""
    mean, var = layer.running_mean, layer.running_var
    if mean is None or var is None or not layer.track_running_stats:
        return None
    if not layer.training:
        layer._check_input_dim(input)  # type: ignore[no-untyped-call]
        return frozen_norm(
            input, mean, var, layer.weight, layer.bias, eps=layer.eps, residual=residual, activation=activation
        )
    if isinstance(layer, _StochNorm) and not layer._is_batch_norm(input):
        return layer._stochastic_forward(input, residual, activation)
    if layer.momentum is None and layer.num_batches_tracked is None:
        return None
    if not _fits(input, residual):
        return None  # PyTorch's own kernels for batch normalization are faster than their pieces
    layer._check_input_dim(input)  # type: ignore[no-untyped-call]
    check_values_per_channel(input)
    if isinstance(layer, _StochNorm):
        layer._pass_as_batch_norm()  # as in its own forward pass
    output, _ = stoch_norm_(
        input,
        mean,
        var,
        layer.weight,
        layer.bias,
        use_batch=None,
        momentum=layer.momentum,
        eps=layer.eps,
        batches=layer.num_batches_tracked,
        residual=residual,
        activation=activation,
    )
    return output


def is_normalization(layer: nn.Module) -> bool:
    """Return whether a module is a normalization layer with a known forward pass; derived classes are not."""
    kind: Any = type(layer)  # mypy: a class is hashable
    return _is_known(kind)


@cache
def _is_known(kind: Any) -> bool:
    return kind in _KNOWN or kind.__module__.startswith(_TIMMS.get(kind.__name__, "-"))


def untouched(module: nn.Module) -> bool:
    """Return whether calling a module only runs the forward pass of its class: no hook sees its input or output."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or global_hooks._has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def on_gpu(input: Tensor) -> bool:
    """Return whether a plain tensor is on a GPU, and its modules run there one by one, not compiled."""
    return not torch.compiler.is_compiling() and type(input) in (Tensor, nn.Parameter) and _has_kernels(input)


def _has_kernels(input: Tensor) -> bool:
    return input.is_cuda
