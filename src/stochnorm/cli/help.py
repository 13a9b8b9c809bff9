"""The short help of commands with many options: those that most people set, then the names of the others."""

from __future__ import annotations

import shutil
import sys
import textwrap
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

import tyro
from tyro.conf import Suppress

from stochnorm.methods.catalogue import MethodSettings
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.settings import ImageSettings, RecipeSettings, RunSettings

__all__ = ["has_short_help", "show_short_help"]

_TEN = ("method", "budget", "backbone", "steps", "batch_size", "image_size", "lr", "folds", "seed", "out")
_GROUPS = {
    "data and run": RunSettings,
    "optimization": RecipeSettings,
    "images": ImageSettings,
    "methods": MethodSettings,
}


def has_short_help(kind: type[Any]) -> bool:
    """Return whether a command has all settings of a run."""
    return issubclass(kind, FinetuneConfig)


def show_short_help(kind: type[Any], prog: str) -> None:
    """Print the options that most people set, and the names of the others by group."""
    settings = {f.name for f in fields(FinetuneConfig)}
    shown = {"data", *_TEN} | {f.name for f in fields(kind) if f.name not in settings}
    try:
        tyro.cli(_with_only(kind, shown), prog=prog, args=["--help"])
    except SystemExit:
        width = min(shutil.get_terminal_size().columns, 120)
        sys.stdout.write(f"more options, explained by {prog} --help-all:\n")
        for title, group in _GROUPS.items():
            names = " ".join(_names(kind, group, shown))
            indent = " " * (2 + max(map(len, _GROUPS)) + 2)
            lines = textwrap.fill(names, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
            sys.stdout.write(f"  {title}".ljust(len(indent)) + lines.lstrip() + "\n")
        raise


def _with_only(kind: type[Any], shown: set[str]) -> Any:
    """Return a class like a command's whose help has some of its options alone."""
    hints = get_type_hints(kind, include_extras=True)
    hidden = [f for f in fields(kind) if f.name not in shown]
    suppress: Any = Suppress  # at run time
    annotations = {f.name: suppress[hints[f.name]] for f in hidden}
    space: dict[str, Any] = {"__doc__": kind.__doc__, "__annotations__": annotations}
    for f in hidden:
        space[f.name] = field(default=f.default, default_factory=f.default_factory, kw_only=True)
    return dataclass(frozen=True)(type(kind.__name__, (kind,), space))


def _names(kind: type[Any], group: type[Any], shown: set[str]) -> list[str]:
    """Return the options of a group of settings that are not shown."""
    hints = get_type_hints(kind, include_extras=True)
    names = []
    for f in fields(group):
        if f.name not in shown and not _suppressed(hints[f.name]):
            names.append("--" + f.name.replace("_", "-") + (".*" if is_dataclass(hints[f.name]) else ""))
    return names


def _suppressed(hint: Any) -> bool:
    return any(repr(marker) == "Suppress" for marker in getattr(hint, "__metadata__", ()))
