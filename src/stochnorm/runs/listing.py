"""Runs in a folder: what they are, how far they are, how good; and what two of them have set differently."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stochnorm.runs.config import FinetuneConfig, flat
from stochnorm.runs.directory import Run

__all__ = ["ORDERS", "Listed", "differences", "list_runs", "runs_below"]

_PARTS = {"candidates", "trials", "folds"}


@dataclass(frozen=True)
class Listed:
    """One run in a list."""

    path: Path
    method: str
    state: str
    score: str
    """Name of its score; empty if it has none yet."""
    validation: float | None
    test: float | None
    when: float
    """When it was written last, seconds since 1970."""
    bytes: int
    """Space that it takes up."""


ORDERS = {
    "name": lambda run: str(run.path),
    "when": lambda run: -run.when,
    "test": lambda run: -(run.test if run.test is not None else -1.0),
    "validation": lambda run: -(run.validation if run.validation is not None else -1.0),
    "size": lambda run: -run.bytes,
}
"""Keys to sort by: the newest, the best or the largest first."""


def runs_below(folder: Path, *, parts: bool = False) -> Iterator[Run]:
    """Yield the runs in a folder, at any depth, by name.

    Args:
        folder: The folder; it may be a run itself.
        parts: Include those that are parts of other runs or of a search: candidates, folds, trials.
    """
    for place, folders, files in os.walk(folder):
        folders.sort()
        if "config.json" in files and _is_run(Path(place, "config.json")):
            yield Run(Path(place))
            if not parts:
                folders.clear()
        elif not parts:
            folders[:] = [name for name in folders if name not in _PARTS]


def list_runs(folder: Path) -> list[Listed]:
    """Return the runs in a folder, without those that are parts of others."""
    return [_listed(run) for run in runs_below(folder)]


def differences(first: Path, second: Path) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two runs, or two files of settings, differ; those of a group as `l2sp.alpha`.

    Raises:
        FileNotFoundError: There is no such run or file.
        ValueError: A file is damaged.
    """
    one, other = (flat(asdict(FinetuneConfig.load(_settings_file(path)))) for path in (first, second))
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}


def _settings_file(path: Path) -> Path:
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no run and no file of settings; stochnorm runs lists the runs")
    return file


def _is_run(settings: Path) -> bool:
    try:
        content = json.loads(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "method" in content


def _listed(run: Run) -> Listed:
    files = [file for file in run.path.rglob("*") if file.is_file() and not file.is_symlink()]
    method, state, score = "?", run.state, ""
    values: dict[str, float | None] = {"validation": None, "test": None}
    try:
        method = FinetuneConfig.load(run.config).method
        if run.result.is_file():
            result = run.read_result()
            score = result["score"]
            values = {name: (result.get(name) or {}).get(score) for name in values}
    except (OSError, ValueError, LookupError):
        state = "damaged"  # type: ignore[assignment]
    abouts = [file.stat() for file in files]
    return Listed(
        run.path,
        method,
        state,
        score,
        values["validation"],
        values["test"],
        max((about.st_mtime for about in abouts), default=0.0),
        sum(about.st_size for about in abouts),
    )
