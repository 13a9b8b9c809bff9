"""Show warnings in another way for a while."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["show_warnings"]


@contextmanager
def show_warnings(show: Callable[..., None]) -> Iterator[None]:
    """Let a function show the warnings within the block; afterwards filters and function are as before.

    Args:
        show: Function with the arguments of `warnings.showwarning`.

    Example:
        >>> with show_warnings(lambda message, *_, **__: print("seen:", message)):
        ...     warnings.simplefilter("always")
        ...     warnings.warn("skipped 3 images")
        seen: skipped 3 images
    """
    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
