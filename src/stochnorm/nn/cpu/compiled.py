"""What ``kernel.py`` and ``depthwise.py`` share: each loads a library that ``setup.py`` compiled for CPUs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["load", "threads"]

_Functions: TypeAlias = dict[torch.dtype, tuple[Callable[..., None], Callable[..., None]]]
_ONE_THREAD = 32768  # values; below, other threads cost more than they bring, as in ATen


def load(
    extension: str, name: str, dtypes: Iterable[torch.dtype], *, forward: Sequence[Any], backward: Sequence[Any]
) -> _Functions | None:
    """The functions ``NAME_forward_DTYPE`` and ``NAME_backward_DTYPE`` of a shared library.

    Args:
        extension: The library, ``stochnorm.nn.cpu.EXTENSION``.
        name: What its functions begin with.
        dtypes: That it has functions for.
        forward: Types of the arguments, as ctypes has them.
        backward: The same, of the other direction.

    Returns:
        Forward and backward by dtype; None where the library was not built.
    """
    spec = find_spec(f"stochnorm.nn.cpu.{extension}")
    if spec is None or spec.origin is None:
        return None

    def function(direction: str, dtype: torch.dtype, types: Sequence[Any]) -> Any:
        found = getattr(library, f"{name}_{direction}_{str(dtype).removeprefix('torch.')}")
        found.argtypes, found.restype = types, None
        return found

    try:
        library = ctypes.CDLL(spec.origin)
        return {d: (function("forward", d, forward), function("backward", d, backward)) for d in dtypes}
    except (OSError, AttributeError):  # built for another machine, or by another version
        return None


def threads(input: Tensor) -> int:
    """How many a compiled function is to use for an input."""
    return torch.get_num_threads() if input.numel() >= _ONE_THREAD else 1
