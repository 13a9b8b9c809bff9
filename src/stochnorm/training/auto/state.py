"""What `auto` has done so far, in a file from which it continues."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from stochnorm.files import write_text
from stochnorm.kinds import check_kinds, parse_json

__all__ = ["State", "Tried"]

T = TypeVar("T")


@dataclass(frozen=True)
class Tried:
    """A candidate that was tried."""

    name: str
    title: str
    """Its name for people."""
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    """What distinguishes its settings from those of the run."""
    steps: int = 0
    seconds: float = 0.0
    validation: float | None = None
    """Score on the validation images, percent; None if it has none."""
    reason: str = ""
    """Why it was dropped; empty if it was not."""


class _StateKind(TypedDict):
    seconds: float
    plan: dict[str, Any]
    tried: list[dict[str, Any]]


_PLANNED = {
    "pace": tuple[float, float],
    "plan": tuple[int, int],
    "also": bool,
    "refit": bool,
    "some": int,
    "steps": int,
}


def _check_planned(name: str, value: Any) -> None:
    """Raise ValueError where a decision is not of its kind; those of other names are seconds."""
    parse_json(json.dumps({name: value}), dict[str, _PLANNED.get(name.partition(" ")[0], float)])  # type: ignore[misc]


class State:
    """The plan, the candidates that were tried, and the time they took. Each change is written at once.

    Args:
        path: The file.
        resume: Continue from the file, if there is one.

    Raises:
        ValueError: The file is damaged.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self.plan: dict[str, Any] = {}
        self.tried: dict[str, Tried] = {}
        before = 0.0
        if resume and path.is_file():
            try:
                content = parse_json(path.read_text(encoding="utf-8"), _StateKind)
                for name, value in content["plan"].items():
                    _check_planned(name, value)
                for one in content["tried"]:
                    check_kinds(Tried, one)
                self.plan, before = content["plan"], content["seconds"]
                self.tried = {one["name"]: Tried(**one) for one in content["tried"]}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} is damaged ({error}); start again with --overwrite") from error
        self._start = time.monotonic() - before

    @property
    def seconds(self) -> float:
        """Time since the beginning, without that between a stop and the resumption."""
        return time.monotonic() - self._start

    def decided(self, key: str, decide: Callable[[], T]) -> T:
        """Return what was decided; decide it at the first call, so that a resumed search does not decide otherwise."""
        if key not in self.plan:
            self.plan[key] = decide()
            self.keep()
        return self.plan[key]  # type: ignore[no-any-return]

    def add(self, tried: Tried) -> None:
        """Keep a candidate."""
        self.tried[tried.name] = tried
        self.keep()

    def keep(self) -> None:
        """Write the file, with the time so far."""
        content = {"seconds": self.seconds, "plan": self.plan, "tried": [asdict(one) for one in self.tried.values()]}
        write_text(self._path, json.dumps(content, indent=2, allow_nan=False) + "\n")
