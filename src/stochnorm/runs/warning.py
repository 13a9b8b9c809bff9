"""Show warnings in another way for a while."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["show_warnings", "warnings_once"]


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


@contextmanager
def warnings_once() -> Iterator[None]:
    """Show a warning once within the block, even if several runs raise it."""
    show, seen = warnings.showwarning, set()

    def show_new(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if (category, str(message)) not in seen:
            seen.add((category, str(message)))
            show(message, category, *place, **options)

    with show_warnings(show_new):
        yield
