"""JSON that is read, checked against types: those of a dataclass, or of a `TypedDict`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints, is_typeddict

__all__ = ["check_kinds", "parse_json", "read_json"]

_LARGE = " of 64 bits"


def read_json(path: Path, kind: Any, remedy: str) -> Any:
    """Return the content of a JSON file of a known kind.

    Args:
        path: The file.
        kind: Its type, such as a `TypedDict`.
        remedy: What to do if it is damaged, for the message.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"), kind)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from error


def parse_json(text: str, kind: Any) -> Any:
    """Return a JSON value of a known kind.

    Raises:
        ValueError: It is no JSON, holds a number that is none, or is of another kind.
    """

    def no_number(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")

    try:
        value = json.loads(text, parse_constant=no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if fault := _fault(value, kind, ""):
        raise ValueError(fault)
    return value


def check_kinds(kind: type, settings: Mapping[str, Any]) -> None:
    """Raise TypeError where a value, as JSON has it, is not of its field's type, ValueError for an integer beyond 64
    bits; name the field.

    Args:
        kind: The dataclass.
        settings: Values by the names of its fields; other names are left alone.
    """
    for name, value in settings.items():
        if fault := _fault(value, _hints(kind).get(name, Any), name):
            raise (ValueError if type(value) is int and _LARGE in fault else TypeError)(fault)


_hints = cache(get_type_hints)


def _fault(value: Any, hint: Any, name: str) -> str:
    """Return which part of a value is not of its type; empty if all are."""
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, hint):
        value = vars(value)
    if (is_dataclass(hint) or is_typeddict(hint)) and isinstance(value, Mapping):
        missing = sorted(getattr(hint, "__required_keys__", frozenset()) - value.keys())
        if missing:
            return f"{_inside(name, missing[0])} is missing"
        parts = ((value[key], kind, _inside(name, key)) for key, kind in _hints(hint).items() if key in value)
    elif get_origin(hint) is dict and isinstance(value, Mapping):
        parts = ((part, get_args(hint)[1], _inside(name, key)) for key, part in value.items())
    elif get_origin(hint) in (list, tuple) and isinstance(value, (list, tuple)):
        of = get_args(hint)
        kinds = of if get_origin(hint) is tuple and ... not in of else of[:1] * len(value)
        if len(kinds) != len(value):
            return f"{name or 'it'} must have {len(kinds)} entries, got {len(value)}"
        parts = ((part, kind, f"{name}[{i}]") for i, (part, kind) in enumerate(zip(value, kinds, strict=True)))
    elif get_origin(hint) in (Union, UnionType):
        kinds = get_args(hint)
        faults = [_fault(value, kind, name) for kind in kinds]
        nested = [fault for fault in faults if not fault.startswith(f"{name or 'it'} must be ")]
        return "" if "" in faults else nested[0] if nested else _refusal(value, hint, name)
    else:
        return "" if _fits(value, hint) else _refusal(value, hint, name)
    return next(filter(None, (_fault(*part) for part in parts)), "")


def _inside(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _refusal(value: Any, hint: Any, name: str) -> str:
    shown = repr(value)
    size = _LARGE if type(value) is int and hint in (int, float) else ""
    return f"{name or 'it'} must be {_words(hint)}{size}, got {shown if len(shown) < 60 else f'{shown[:60]}...'}"


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_words, get_args(hint)))
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if hint is float:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, float) or (whole and abs(value) <= sys.float_info.max)
    return not is_typeddict(hint) and isinstance(value, get_origin(hint) or hint)
