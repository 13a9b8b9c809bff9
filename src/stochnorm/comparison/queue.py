"""The queue of a comparison: hand out jobs, wait for them, try again what another process holds, stop in order."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from threading import Event

from stochnorm.comparison.executors import Executor, Job
from stochnorm.comparison.progress import GridProgress
from stochnorm.runs.directory import Run
from stochnorm.runs.interrupt import stop_signal

__all__ = ["perform_all"]

_POLL = 0.5  # seconds between looks at the progress of running jobs
_PATIENCE = 5.0  # seconds before a run that another process holds is tried again


def perform_all(
    jobs: Sequence[tuple[str, Job]], start: Callable[..., Executor], *, what: str, quiet: bool = False
) -> list[str]:
    """Do the jobs that are not done.

    Args:
        jobs: Titles and jobs.
        start: Makes the executor, given the settings of the jobs as `configs`; not called if nothing is left to do.
        what: Name of the jobs in messages, plural.
        quiet: Print nothing.

    Returns:
        Title and reason of each job that failed.

    Raises:
        KeyboardInterrupt: Stopped by Ctrl-C or SIGTERM. Running jobs wrote checkpoints.
    """
    todo = deque((title, job) for title, job in jobs if job.trials or not Run.of(job.config).result.is_file())
    with GridProgress(len(jobs), len(jobs) - len(todo), what, quiet=quiet) as progress:
        if not todo:
            return []
        workers = start(configs=[job.config for _, job in todo])
        try:
            with stop_signal() as stop:
                reasons = _drain(todo, workers, progress, stop)
            if stop.is_set():
                progress.stopping()
        finally:
            workers.close()
        if stop.is_set():
            raise KeyboardInterrupt(f"stopped after {progress.done} of {progress.total} {what}; no work is lost")
        return reasons


def _drain(todo: deque[tuple[str, Job]], workers: Executor, progress: GridProgress, stop: Event) -> list[str]:
    """Hand out jobs until all have ended or `stop` is set; return title and reason of those that failed."""
    titles: dict[Job, str] = {}
    warned: set[str] = set()
    held: dict[Job, float] = {}  # when to try again a job that another process works on
    reasons = []
    while (todo or titles) and not stop.is_set():
        while todo and len(titles) < workers.slots and held.get(todo[0][1], 0.0) <= time.monotonic():
            title, job = todo.popleft()
            titles[job] = title
            workers.start(job)
            progress.started(title, job)
        if not titles:  # other processes hold all that is left
            time.sleep(_POLL)
            continue
        for job, outcome in workers.wait(_POLL):
            title = titles.pop(job)
            if outcome.state in ("busy", "stopped"):
                held[job] = time.monotonic() + _PATIENCE
                todo.append((title, job))
            if outcome.state == "failed":
                reasons.append(f"{title}: {outcome.reason}")
            progress.ended(title, job, outcome)
            for warning in outcome.warnings:
                if warning not in warned:  # once, not for every run
                    warned.add(warning)
                    warnings.warn(warning, stacklevel=2)
        progress.look()
    return reasons
