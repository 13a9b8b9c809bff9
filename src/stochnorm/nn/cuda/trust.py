"""Decide whether the Triton kernels may be used: only after they computed the right values here.

Before a kernel is used for the first time with some device, dtype, memory order and activation, it runs on a small
input, and its results are compared with those of the written formula. If it raises or differs, the process says so once
and uses PyTorch's own kernels from then on. If the device's memory is full, nothing is known: PyTorch's own kernels are
used this time, and the next time the check is repeated.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Hashable, Iterable
from threading import RLock

import torch
from torch import Tensor

__all__ = ["agree", "allowed", "distrust", "reset", "trusted"]

SWITCH = "STOCHNORM_TRITON"

_lock = RLock()
_known: set[Hashable] = set()
_allowed = os.environ.get(SWITCH, "1") != "0"


def allowed() -> bool:
    """Return whether the kernels may be used at all: not after a failure, and not with STOCHNORM_TRITON=0."""
    return _allowed


def trusted(key: Hashable, check: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> bool:
    """Return whether a kernel may be used; the first time, find out.

    Args:
        key: What the kernel depends on.
        check: Runs the kernel; returns pairs of its results and the right ones.
    """
    if key in _known:
        return _allowed
    if not _allowed or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        return False
    with _lock:
        try:
            for number, (ours, right) in enumerate(check()):
                if not agree(ours, right):
                    raise ArithmeticError(f"result {number} of {key} differs from the formula")
        except Exception as error:  # of the compiler, the driver, or a wrong result
            if not _memory_is_full(error):
                distrust(error)
            return False
        _known.add(key)
    return True


def distrust(error: Exception) -> None:
    """Do not use the kernels any more in this process; warn once."""
    global _allowed
    if _allowed:
        _allowed = False
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(
            f"stochnorm's Triton kernels do not work here ({message}); PyTorch's own kernels are used, which are "
            f"slower. Please report it; {SWITCH}=0 in the environment silences this warning",
            RuntimeWarning,
            stacklevel=2,
        )


def _memory_is_full(error: Exception) -> bool:
    """Return whether an error says that the device has no memory left, in PyTorch's words or in Triton's."""
    return isinstance(error, torch.OutOfMemoryError) or "[CUDA]: out of memory" in str(error)


def agree(ours: Tensor, right: Tensor) -> bool:
    """Return whether two results are equal up to rounding, on the scale of the largest value; NaN never is."""
    if ours.shape != right.shape:
        return False
    tolerance = 8 * torch.finfo(ours.dtype).eps if ours.dtype.itemsize == 2 else 1e-4
    ours, right = ours.double(), right.double()
    return bool((ours - right).abs().max() <= tolerance * (right.abs().max() + 1e-3))


def reset() -> None:
    """Forget what was found out."""
    global _allowed
    _known.clear()
    _allowed = os.environ.get(SWITCH, "1") != "0"
