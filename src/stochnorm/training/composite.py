"""A run that is made of several trainings: its directory, which holds them."""

from __future__ import annotations

from collections.abc import Callable

from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.training.display import Display
from stochnorm.training.train import Result

__all__ = ["in_its_directory"]


def in_its_directory(config: FinetuneConfig, display: Display, work: Callable[[Run], None], *, kept: str) -> Result:
    """Do the work of a run, unless it is finished, in its directory, which it holds; return and show the result.

    Args:
        config: The settings, which name the directory.
        display: Where the result is shown.
        work: Leaves `result.json`.
        kept: What is kept if the work is stopped, in words.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: As [stochnorm.runs.directory.Run.check][].
        KeyboardInterrupt: The work was stopped.
    """
    run = Run.of(config)
    run.check_place(config)
    with run.held():
        run.check(config)
        if config.resume and run.result.is_file():
            display.note(f"{run.path} is finished; this is its result")
        else:
            try:
                work(run)
            except KeyboardInterrupt as stop:
                raise KeyboardInterrupt(f"stopped; {kept} kept in {run.path}") from stop
        result = Result(run.path, run.read_result())
        display.result(result.record, run)
        return result
