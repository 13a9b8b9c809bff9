"""Jobs on a Ray cluster. All of its machines must reach the data and the comparison by the same paths."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

from stochnorm.comparison.executors.job import Job, Outcome, failed, perform

__all__ = ["RayExecutor"]

_PATIENCE = 60.0  # seconds that jobs have to write their checkpoints


class RayExecutor:
    """One Ray task per job, on the cluster that `RAY_ADDRESS` names or on a new one on this machine.

    Args:
        workers: Jobs at a time; 0: as many as the cluster has room for.
        threads: CPUs per process; 0: 1.
        processes: Processes per run; if the cluster has GPUs, each process takes one.

    Attributes:
        slots: Number of jobs at a time.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: A run has more processes than the cluster has GPUs.
    """

    def __init__(self, workers: int, threads: int, processes: int) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("executor ray needs Ray: pip install 'stochnorm[ray]'") from error
        self._ray: Any = ray
        self._started = not self._ray.is_initialized()
        if self._started:
            self._ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        self._running: dict[Any, Job] = {}
        resources = self._ray.cluster_resources()
        if 0 < resources.get("GPU", 0) < processes:
            self.close()
            raise ValueError(
                f"processes {processes} need a GPU each, but the cluster has {resources['GPU']:g}; give --processes "
                f"{resources['GPU']:g} or less"
            )
        threads = threads or 1
        cpus, gpus = threads * processes, processes if resources.get("GPU") else 0
        room = int(min(resources["CPU"] / cpus, resources["GPU"] / gpus if gpus else resources["CPU"]))
        self.slots = workers or max(room, 1)
        environment = {"env_vars": {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}}
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0, "runtime_env": environment}
        self._task: Any = self._ray.remote(**options)(_perform)

    def start(self, job: Job) -> None:
        """Start a job."""
        self._running[self._task.remote(job.as_json(), str(Path.cwd()))] = job

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """Return the jobs that ended, after at most `timeout` seconds."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        ended = []
        for reference in ready:
            job = self._running.pop(reference)
            try:
                outcome = Outcome.from_json(self._ray.get(reference))
            except self._ray.exceptions.RayError as error:  # its process or machine died
                outcome = failed(job, f"lost by Ray: {str(error).splitlines()[0]}")
            ended.append((job, outcome))
        return ended

    def close(self) -> None:
        """Leave the cluster, or end it if this object started it; running jobs write their checkpoints first."""
        for reference in self._running:
            self._ray.cancel(reference)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=_PATIENCE)
        self._running = {}
        if self._started:
            self._ray.shutdown()


def _perform(job: str, directory: str) -> str:
    """Do a job, given as JSON, and return its outcome as JSON."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ray cancels by it, and nohup ignores it
    os.chdir(directory)  # for relative paths of data and runs
    return perform(Job.from_json(job)).as_json()
