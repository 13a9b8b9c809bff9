"""The activations that the kernels compute, and the numbers by which they know them (`activate` in `tiles.py`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["FUNCTIONS", "NONE", "RELU", "RELU6", "SILU", "code_of"]

NONE, RELU, RELU6, SILU = range(4)

FUNCTIONS: tuple[Any, ...] = (nn.Identity(), torch.relu, nn.functional.relu6, nn.functional.silu)
"""What the numbers mean."""
_CODES = {nn.Identity: NONE, nn.ReLU: RELU, nn.ReLU6: RELU6, nn.SiLU: SILU}


def code_of(activation: nn.Module | None) -> int | None:
    """Return the number by which the kernels know an activation; None if they do not, or if it has hooks."""
    if activation is None:
        return NONE
    hooked = activation._forward_hooks or activation._forward_pre_hooks or activation._backward_hooks
    return None if hooked or activation._backward_pre_hooks else _CODES.get(type(activation))
