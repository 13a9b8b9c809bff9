"""Images read ahead by threads; those that cannot be read are skipped with one warning."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Protocol, TypeVar

from stochnorm.data.images.ahead import map_ahead
from stochnorm.text import some

__all__ = ["THREADS", "Track", "readable"]

Item = TypeVar("Item")
Image = TypeVar("Image")

THREADS = os.cpu_count() or 1
"""Number of threads that read images."""


class Track(Protocol):
    """A progress display that yields the items it is given, such as `rich.progress.track`."""

    def __call__(self, items: Iterable[Item], *, description: str, total: int) -> Iterable[Item]: ...


def readable(
    read: Callable[[Item], Image], items: Sequence[Item], *, ahead: int, strict: bool, track: Track | None = None
) -> Iterator[tuple[Item, Image]]:
    """Read images in threads and yield the readable ones, in order, each with its item.

    Args:
        read: Function from an item to its image. It raises ValueError if the image cannot be read.
        items: One item per image, such as its path.
        ahead: Maximum number of images to read ahead.
        strict: Raise at the first unreadable image instead of skipping it.
        track: Progress display.

    Raises:
        ValueError: No image can be read; or, with `strict`, one cannot.

    Warns:
        UserWarning: Images were skipped; given after the last one, with their number and the first names.
    """

    def attempt(item: Item) -> Image | ValueError:
        try:
            return read(item)
        except ValueError as error:
            return error

    broken: list[str] = []
    with closing(map_ahead(attempt, items, threads=THREADS, ahead=ahead)) as ready:
        results: Iterable[Image | ValueError] = ready
        if track is not None:
            results = track(results, description="Reading images", total=len(items))
        for item, result in zip(items, results, strict=True):
            if not isinstance(result, ValueError):
                yield item, result
            elif strict:
                raise result
            else:
                broken.append(str(result))
    if broken and len(broken) == len(items):
        raise ValueError(f"none of {len(items)} images can be read: {some(broken)}")
    if broken:
        warnings.warn(f"skipped {len(broken)} of {len(items)} images: {some(broken)}", stacklevel=2)
