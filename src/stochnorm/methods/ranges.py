"""Range and search of a setting, written beside it: `alpha: Annotated[float, Range(0), Search(1e-3, 1.0)] = 0.1`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

__all__ = ["Range", "Search", "check_ranges", "noted"]

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The values that a setting may have; None is always one of them."""

    low: float
    high: float = math.inf
    above: bool = False
    """True if `low` itself is outside."""

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError unless the value is in the range; name the setting."""
        if value is None:
            return
        fits = self.low < value if self.above else self.low <= value
        if not (fits and value <= self.high and value < math.inf):
            raise ValueError(f"{name} must be {self._words(value)}, got {value}")

    def _words(self, value: Any) -> str:
        if self.high < math.inf:
            return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}]"
        finite = "" if isinstance(value, int) else " and finite"
        return f"{'above' if self.above else 'at least'} {self.low:g}{finite}"


@dataclass(frozen=True)
class Search:
    """Bounds between which `stochnorm tune` searches a setting; a value outside them extends them."""

    low: float
    high: float
    log: bool = True
    """True for a logarithmic scale."""
    step: float | None = None
    """Distance of the values tried, where the value to start from is a multiple of it."""


def check_ranges(settings: Any, prefix: str = "") -> None:
    """Raise ValueError where a field of a dataclass is out of its range; the name in the message begins with prefix."""
    for name, allowed in noted(type(settings), Range):
        allowed.check(f"{prefix}{name}", getattr(settings, name))


def noted(kind: type, note: type[T]) -> Iterator[tuple[str, T]]:
    """Yield the fields of a dataclass that have a note of a kind in their annotation, with the note."""
    for name, found in _notes(kind):
        if isinstance(found, note):
            yield name, found


@cache
def _notes(kind: type) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        (name, note) for name, hint in hints.items() if get_origin(hint) is Annotated for note in get_args(hint)[1:]
    )
