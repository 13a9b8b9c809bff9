"""Executors of the jobs of a comparison: worker processes on this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from stochnorm.comparison.executors.job import Job, Outcome
from stochnorm.runs.config import FinetuneConfig

__all__ = ["Executor", "Job", "Outcome", "executor"]


class Executor(Protocol):
    """Something that does several jobs at a time."""

    slots: int
    """Number of jobs at a time."""

    def start(self, job: Job) -> None:
        """Start a job."""

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """Return the jobs that ended, after at most `timeout` seconds."""

    def close(self) -> None:
        """Stop all running jobs once they have written their checkpoints."""


def executor(
    name: str, *, workers: int, threads: int, processes: int, logs: Path, configs: Sequence[FinetuneConfig] = ()
) -> Executor:
    """Return an executor.

    Args:
        name: `local` or `ray`.
        workers: Jobs at a time; 0: the executor's own choice.
        threads: CPU threads per process; 0: the executor's own choice.
        processes: Processes per run.
        logs: Folder for the output of worker processes.
        configs: Settings of the runs, by which the executor chooses.

    Raises:
        ValueError: The name is unknown, a number is too small, or a run needs more GPUs than there are.
        ModuleNotFoundError: The executor's package is not installed.
    """
    for what, value, low in (("workers", workers, 0), ("threads", threads, 0), ("processes", processes, 1)):
        if value < low:
            raise ValueError(f"{what} must be at least {low}, got {value}")
    if name == "local":
        from stochnorm.comparison.executors.local import LocalExecutor

        return LocalExecutor(workers, threads, processes, logs, configs)
    if name == "ray":
        from stochnorm.comparison.executors.ray_cluster import RayExecutor

        return RayExecutor(workers, threads, processes)
    raise ValueError(f"unknown executor {name!r}; choose local or ray")
