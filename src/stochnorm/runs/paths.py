"""The paths in a run's settings, found again from any working directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stochnorm.kinds import read_json

__all__ = ["FROM", "find_again", "plain_path", "working_directory"]

FROM = "relative_to"
"""Key in a run's `config.json`: the working directory of the run, seen from the run's directory."""


def plain_path(path: str) -> str:
    """Return a path without a separator at its end and without `./` at its beginning.

    Example:
        >>> plain_path("photos/"), plain_path("./photos"), plain_path("photos/list.csv"), plain_path("")
        ('photos', 'photos', 'photos/list.csv', '')
    """
    return os.fspath(Path(path)) if path else path


def working_directory(run: Path) -> str:
    """Return the working directory as it is seen from a run's directory, so that both may be moved together."""
    try:
        return Path(os.path.relpath(Path.cwd(), run.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return str(Path.cwd())


def find_again(run: Path, path: str) -> str:
    """Return a path of a run's settings, such as DATA, as it leads to the file or folder from here.

    It is looked for in the directory where the run was started, then in the working directory, then in the folders
    around the run; the name of a data set, and what is found nowhere, stay as they are.

    Args:
        run: Directory of the run.
        path: The path as it was given.
    """
    if Path(path).is_absolute():
        return path
    place = run.resolve()
    started = _started_in(place)
    there = [place / started / path] if started else []
    for candidate in [*there, Path(path), *(folder / path for folder in place.parents)]:
        if candidate.exists():
            return os.path.relpath(candidate) if candidate.is_relative_to(Path.cwd()) else os.path.normpath(candidate)
    return path


def _started_in(run: Path) -> str:
    """Return the working directory of a run, seen from it; empty for one of an earlier version."""
    try:
        content: dict[str, Any] = read_json(run / "config.json", dict[str, Any], "")
    except (OSError, ValueError):
        return ""
    return str(content.get(FROM, ""))
