"""The probability p of a layer, and masks drawn with it on the device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_p", "draw_mask", "is_captured"]


def check_p(p: float) -> float:
    """Return p as a float; raise ValueError unless it is a probability."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(
            f"p must be in [0, 1], got {p!r}: it is the probability that a channel is normalized by batch "
            "statistics (1 is BatchNorm, the paper uses 0.5)"
        )
    return float(p)


def draw_mask(channels: int, p: Tensor) -> Tensor:
    """Return a mask that follows p, a tensor on the device, in CUDA graphs and under `torch.compile`.

    Args:
        channels: Number of channels c.
        p: Probability; float32, ().

    Returns:
        The mask, (c,): bool; under `torch.compile` 1 with probability p, else 0, in float32. The product over one
        factor is an operation that the compiler does not repeat in the backward pass. Otherwise it would compute the
        mask there from the saved p, which may have changed.
    """
    if torch.compiler.is_compiling():
        return (p - torch.rand(channels, 1, device=p.device)).ceil().prod(1)
    return torch.empty(channels, dtype=torch.bool, device=p.device).bernoulli_(p)


def is_captured(input: Tensor) -> bool:
    """Return whether a CUDA graph records the operations on a tensor."""
    return input.is_cuda and torch.cuda.is_current_stream_capturing()
