"""The last classifier that was built, kept for the next run in the same process: the variants of a cell share it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from stochnorm.files import FileStamp
from stochnorm.models.classifier import Classifier
from stochnorm.models.weights import weight_file

__all__ = ["copy_of_kept", "keep", "keeping", "stamp_of"]

_on = False
_kept: tuple[Hashable, Classifier] | None = None


def keep(*, on: bool = True) -> None:
    """Keep the last classifier from now on, one at a time; `on=False` forgets it and keeps none."""
    global _on, _kept
    _on = on
    _kept = _kept if on else None


@contextmanager
def keeping() -> Iterator[None]:
    """Keep the last classifier within the block."""
    before = _on
    keep()
    try:
        yield
    finally:
        keep(on=before)


def copy_of_kept(key: Hashable, build: Callable[[], Classifier]) -> Classifier:
    """Return a classifier of its own: a copy of the one that was kept under the key, or a new one.

    Args:
        key: All that the classifier depends on, files by [stochnorm.models.kept.stamp_of][].
        build: Function that builds it.
    """
    global _kept
    if not _on:
        return build()
    if _kept is None or _kept[0] != key:
        _kept = None  # before the next one is built: two of them might not fit
        _kept = key, build()
    try:
        return copy.deepcopy(_kept[1])
    except RuntimeError:  # a network whose weights are computed from others, which cannot be copied
        _kept = None
        return build()


def stamp_of(weights: str) -> tuple[object, ...]:
    """Return what changes if the file that `--weights` means is written or replaced; only the name if it is no file."""
    path = weight_file(weights)
    try:
        return weights, str(path.resolve()), *FileStamp.of(path)
    except OSError:
        return (weights,)
