"""Who does the runs of a comparison: worker processes of this machine, or a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from stochnorm.comparison.executors.job import Job, Outcome

__all__ = ["Executor", "Job", "Outcome", "executor"]


class Executor(Protocol):
    """Does jobs side by side. Closing it stops those that run, after they have written their checkpoints."""

    slots: int

    def start(self, job: Job) -> None: ...

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]: ...

    def close(self) -> None: ...


def executor(name: str, *, workers: int, threads: int, processes: int, logs: Path) -> Executor:
    """The executor of a name, ``local`` or ``ray``; see its class.

    Raises:
        ValueError: There is none of that name, or a number is negative.
        ModuleNotFoundError: It needs a package that is not installed.
    """
    for what, value, low in (("workers", workers, 0), ("threads", threads, 0), ("processes", processes, 1)):
        if value < low:
            raise ValueError(f"{what} must be at least {low}, got {value}")
    if name == "local":
        from stochnorm.comparison.executors.local import LocalExecutor

        return LocalExecutor(workers, threads, processes, logs)
    if name == "ray":
        from stochnorm.comparison.executors.ray_cluster import RayExecutor

        return RayExecutor(workers, threads, processes)
    raise ValueError(f"unknown executor {name!r}: local, or ray")
