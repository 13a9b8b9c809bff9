"""Types of the settings in a file, checked against a dataclass."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["check_kinds"]


def check_kinds(kind: type, settings: Mapping[str, Any], group: str = "") -> None:
    """Raise TypeError where a value, as JSON has it, is not of its field's type; name the field.

    Args:
        kind: The dataclass.
        settings: Values by the names of its fields; other names are left alone.
        group: Prefix of the names in messages.
    """
    for name, value in settings.items():
        hint = _hints(kind).get(name, object)
        if is_dataclass(hint) and isinstance(value, (Mapping, hint)):  # type: ignore[arg-type]
            inner = value if isinstance(value, Mapping) else vars(value)
            check_kinds(hint, inner, f"{name}.")  # type: ignore[arg-type]
        elif not _fits(value, hint):
            size = " of 64 bits" if type(value) is int and hint in (int, float) else ""
            raise TypeError(f"{group}{name} must be {_words(hint)}{size}, got {value!r}")


_hints = cache(get_type_hints)


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _fits(value: Any, hint: Any) -> bool:
    of = get_args(hint)
    if get_origin(hint) is Literal:
        return value in of
    if get_origin(hint) is tuple:
        return isinstance(value, (list, tuple)) and all(isinstance(item, of[0]) for item in value)
    if of:
        return any(_fits(value, part) for part in of)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if hint is float:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, float) or (whole and abs(value) <= sys.float_info.max)
    return isinstance(value, hint)
