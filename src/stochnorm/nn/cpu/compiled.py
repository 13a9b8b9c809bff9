"""Load a library that `setup.py` compiled for CPUs; `kernel.py` and `depthwise.py` use it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["load", "threads"]

_Functions: TypeAlias = dict[torch.dtype, tuple[Callable[..., None], Callable[..., None]]]
_ONE_THREAD = 32768  # values; below, more threads cost more time than they save, as in ATen


def load(
    extension: str, name: str, dtypes: Iterable[torch.dtype], *, forward: Sequence[Any], backward: Sequence[Any]
) -> _Functions | None:
    """Return the functions `NAME_forward_DTYPE` and `NAME_backward_DTYPE` of a shared library.

    Args:
        extension: Module name of the library inside `stochnorm.nn.cpu`.
        name: First part of the function names.
        dtypes: Dtypes that the library supports.
        forward: Argument types of the forward functions (ctypes).
        backward: Argument types of the backward functions (ctypes).

    Returns:
        Forward and backward functions by dtype; None if the library was not built.
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
    """Return the number of threads of a compiled function for an input."""
    return torch.get_num_threads() if input.numel() >= _ONE_THREAD else 1
