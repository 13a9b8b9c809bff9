"""Memory of CUDA devices: what is free, and the peak of what is used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

__all__ = ["Peak", "free_memory", "peak_memory", "peak_within", "reset_peak_memory"]

_earlier: dict[torch.device, int] = {}  # PyTorch has one count a device; its peak before that was reset for a part


@dataclass
class Peak:
    """The peak memory of a part of a run."""

    used: int = 0
    """Most bytes at a time, besides those in use at its start; 0 on other devices."""


def free_memory(device: torch.device) -> float:
    """Return the memory that a device can still give, in bytes: what is free, and what PyTorch has in reserve.

    Infinite for other devices than CUDA's.
    """
    if device.type != "cuda":
        return math.inf
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def reset_peak_memory(device: torch.device) -> None:
    """Count the peak memory of a CUDA device from now on."""
    _earlier.pop(device, None)
    torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of a CUDA device since it was reset, in bytes."""
    return max(_earlier.get(device, 0), torch.cuda.max_memory_allocated(device))


@contextmanager
def peak_within(device: torch.device) -> Iterator[Peak]:
    """Measure the peak memory of the block; that of the whole run is not forgotten."""
    peak = Peak()
    if device.type != "cuda":
        yield peak
        return
    _earlier[device] = peak_memory(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield peak
    peak.used = torch.cuda.max_memory_allocated(device) - before
