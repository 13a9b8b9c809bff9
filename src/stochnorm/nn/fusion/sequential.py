"""Sequences of modules in which a normalization layer and the activation behind it run in one pass."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from stochnorm.nn.fusion.one_pass import is_normalization, normalize, on_gpu

__all__ = ["FusedSequential", "InPairs", "has_pair", "run_in_pairs"]

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU)


class InPairs(nn.Sequential):
    """Forward pass of a sequence: pairs of normalization and activation run in one pass on GPUs."""

    _fuses: type[nn.Module]

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = run_in_pairs(self, input) if on_gpu(input) else super().forward(input)  # type: ignore[no-untyped-call]
        return output


class FusedSequential(InPairs):
    _fuses = nn.Sequential


def has_pair(modules: Iterable[nn.Module]) -> bool:
    """Return whether an activation directly follows a normalization layer."""
    before = False
    for module in modules:
        if before and type(module) in _ACTIVATIONS:
            return True
        before = is_normalization(module)
    return False


def run_in_pairs(modules: Iterable[nn.Module], input: Tensor, residual: Tensor | None = None) -> Tensor:
    """Run modules one after another, and add a residual at the end; each pair of them runs in one pass."""
    norm = None  # a normalization layer that waits for what follows it
    for module in modules:
        if norm is not None and type(module) in _ACTIVATIONS:
            input, norm = normalize(norm, input, activation=module), None
            continue
        if norm is not None:
            input, norm = norm(input), None
        if is_normalization(module):
            norm = module
        else:
            input = module(input)
    if norm is not None and residual is not None:
        return normalize(norm, input, residual)
    input = input if norm is None else norm(input)
    return input if residual is None else input + residual
