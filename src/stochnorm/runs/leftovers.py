"""Files that can be removed without losing a result: caches, what finished runs were resumed from, models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stochnorm.files import cache_directory
from stochnorm.runs.directory import Run, RunInUseError
from stochnorm.runs.listing import runs_below
from stochnorm.runs.records import LABELS

__all__ = ["Leftover", "leftovers", "space_of"]

CACHES = {
    "images": "decoded images; they are decoded again when they are needed",
    "attention": "channel attention of DELTA; computed again when it is needed",
    "precision": "measured speed of precisions; measured again when it is needed",
}


@dataclass(frozen=True)
class Leftover:
    """Files of one kind."""

    what: str
    """What they are, and what their loss costs."""
    files: tuple[Path, ...]
    run: Run | None = None
    """The run that they are of."""

    @property
    def bytes(self) -> int:
        """Space that they take up."""
        return sum(map(_space, self.files))

    def remove(self) -> int:
        """Remove the files, unless a process works on their run; return the bytes that were freed."""
        freed = 0
        with suppress(RunInUseError):
            if self.run is None:
                return _unlink(self.files)
            with self.run.held():
                freed = _unlink(self.files)
        return freed


def leftovers(folder: Path, *, caches: bool = True, models: bool = False) -> list[Leftover]:
    """Return what can be removed.

    Args:
        folder: Folder of runs, at any depth.
        caches: Include the caches of the user.
        models: Include the models of the runs of comparisons.
    """
    found = []
    if caches:
        found = [Leftover(f"cache: {what}", _files(cache_directory(kind))) for kind, what in CACHES.items()]
    for run in runs_below(folder, parts=True):
        if not run.result.is_file():
            continue
        progress = (run.checkpoint, run.previous_checkpoint, run.previous_model)
        found.append(Leftover(f"{run.path}: checkpoints of a finished run", _there(progress), run))
        if models and (run.path.parent.parent / LABELS).is_file():
            found.append(Leftover(f"{run.path}: model of a run of a comparison", _there((run.model,)), run))
    return [leftover for leftover in found if leftover.files]


def space_of(folder: Path) -> int:
    """Return the space that the files in a folder take up, bytes."""
    return sum(map(_space, _files(folder)))


def _space(file: Path) -> int:
    """Return the space of a file on the disk; of a sparse one, such as a cache of images, what is filled."""
    try:
        about = file.stat()
    except OSError:
        return 0
    blocks = getattr(about, "st_blocks", None)
    return about.st_size if blocks is None else min(about.st_size, 512 * blocks)


def _files(folder: Path) -> tuple[Path, ...]:
    """Return the files below a folder; no links, no locks."""
    return tuple(sorted(_walk(folder)))


def _walk(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if not path.is_symlink() and path.suffix != ".lock" and name != ".lock":
                yield path


def _there(files: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(file for file in files if file.is_file() and not file.is_symlink())


def _unlink(files: tuple[Path, ...]) -> int:
    freed = 0
    for file in files:
        space = _space(file)
        with suppress(FileNotFoundError):
            file.unlink()
            freed += space
    return freed
