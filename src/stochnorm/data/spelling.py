"""Class names that look the same, or nearly."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

from stochnorm.text import some

__all__ = ["alike", "together", "warn_of_near_names"]

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
_LONGEST = 30  # digits of a number that is compared
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # they change how letters look
_MISSING = frozenset({"none", "null", "na", "n/a"})


def alike(name: str) -> str:
    """Return what the spellings of a name have in common that look the same: accents composed, one space of one kind
    between words and none around them, no characters without width.

    Example:
        >>> alike(" big\\u00a0 cat\\u200b") == alike("big cat")
        True
    """
    if name.isascii() and name.isprintable() and "  " not in name:
        return name.strip()
    seen = "".join(letter for letter in name if unicodedata.category(letter) != "Cf" or letter in _JOINERS)
    return " ".join(unicodedata.normalize("NFC", seen).split())


def together(names: Iterable[str], key: Callable[[str], Hashable]) -> list[list[str]]:
    """Return the names that share a key with another, those of a key together, sorted."""
    groups: dict[Hashable, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(key(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def warn_of_near_names(path: Path, names: Iterable[str], *, stacklevel: int) -> None:
    """Warn of classes that may be one, by their names (Cat and cat, 1 and 01), and of one that may be a missing value.

    Args:
        path: The folder or file, for the message.
        names: The classes.
        stacklevel: That of the warning, as seen from the caller.
    """
    names = set(names)
    if near := together(names, _near):
        pairs = [" and ".join(map(repr, group)) for group in near]
        what = "capitals, kinds of letters, or how a number is written"
        warnings.warn(
            f"{path}: classes whose names differ only in {what}: {some(pairs)}; if they are one, give it one name",
            stacklevel=stacklevel + 1,
        )
    if missing := sorted(name for name in names if name.lower() in _MISSING):
        warnings.warn(
            f"{path}: {some(missing)} is read as a class; if it stands for a missing label, remove its images",
            stacklevel=stacklevel + 1,
        )


def _near(name: str) -> Hashable:
    if len(name) <= _LONGEST and _NUMBER.fullmatch(name):
        return float(name)
    return unicodedata.normalize("NFKC", name).casefold()
