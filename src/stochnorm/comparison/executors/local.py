"""Worker processes on this machine, each with its share of threads and GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, TypeAlias, cast

from stochnorm.comparison.executors.job import Job, Outcome, cores, failed
from stochnorm.comparison.executors.shares import gpus_for, pixels_of, runs_per_gpu, smallest_memory
from stochnorm.runs.config import FinetuneConfig

__all__ = ["LocalExecutor"]

Answers: TypeAlias = "SimpleQueue[tuple[_Worker, str]]"


class LocalExecutor:
    """Worker processes, one job each at a time. If a worker dies, only its job fails, and a new worker replaces it.

    With GPUs, each worker sees the GPUs of its runs only (`CUDA_VISIBLE_DEVICES`): one for each process of a run.
    Workers beyond the number of GPUs share them.

    Args:
        workers: Number of workers; 0: for each GPU as many as share it (see
            [stochnorm.comparison.executors.shares.runs_per_gpu][]), for `processes` above 1 one per group of GPUs, and
            without GPUs one per core.
        threads: CPU threads per process; 0: an equal share of the cores.
        processes: Processes per run.
        logs: Folder for the output of workers.
        configs: Settings of the runs.

    Attributes:
        slots: Number of jobs at a time.

    Raises:
        ValueError: There is no GPU where one is asked for, or a run has more processes than there are GPUs.
    """

    def __init__(
        self, workers: int, threads: int, processes: int, logs: Path, configs: Sequence[FinetuneConfig] = ()
    ) -> None:
        gpus = gpus_for(configs, processes)
        groups = [gpus[i : i + processes] for i in range(0, len(gpus) - processes + 1, processes)]
        self.slots = workers or _workers(groups, processes, configs)
        self._threads = threads or max(cores() // (self.slots * processes), 1)
        self._gpus = [groups[i % len(groups)] if groups else [] for i in range(self.slots)]
        self._logs = logs
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, Job] = {}
        self._answers: Answers = SimpleQueue()
        self._free = list(range(self.slots))  # numbers of workers that do not run

    def start(self, job: Job) -> None:
        """Start a job; at most `slots` may run at a time."""
        worker = self._idle.pop() if self._idle else self._start_worker()
        self._busy[worker] = job
        worker.tell(job)

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """Return the jobs that ended, after at most `timeout` seconds."""
        try:
            worker, answer = self._answers.get(timeout=timeout)
        except Empty:
            return []
        job = self._busy.pop(worker, None)
        if job is None:  # an idle worker died
            worker.wait()
            self._idle.remove(worker)
            self._free.append(worker.number)
            return []
        if answer:
            self._idle.append(worker)
            return [(job, Outcome.from_json(answer))]
        self._free.append(worker.number)
        return [(job, failed(job, _reason(worker.wait())))]

    def close(self) -> None:
        """End all workers; running jobs write their checkpoints first."""
        workers = [*self._idle, *self._busy]
        for worker in workers:
            worker.close()
        for worker in workers:
            worker.wait()
        self._idle, self._busy = [], {}

    def _start_worker(self) -> _Worker:
        number = self._free.pop(0)
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"worker-{number}.log"
        return _Worker(number, self._threads, self._gpus[number], log, self._answers)


class _Worker:
    """A worker process. Its answers go into a queue, and an empty one when it ends."""

    def __init__(self, number: int, threads: int, gpus: list[str], log: Path, answers: Answers) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stochnorm.comparison.executors.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
                start_new_session=True,  # Ctrl-C reaches only the comparison, which stops its workers
            )
        self.number = number
        self._jobs = cast("IO[str]", self.process.stdin)

        def listen() -> None:
            with cast("IO[str]", self.process.stdout) as stream:
                for line in stream:
                    answers.put((self, line))
            answers.put((self, ""))

        self._listener = threading.Thread(target=listen, daemon=True)
        self._listener.start()

    def tell(self, job: Job) -> None:
        """Send it a job."""
        with suppress(BrokenPipeError):  # it died between two jobs; its empty answer follows
            self._jobs.write(job.as_json() + "\n")
            self._jobs.flush()

    def close(self) -> None:
        """Ask it to end; a running job writes its checkpoint first."""
        with suppress(BrokenPipeError):
            self._jobs.close()

    def wait(self) -> int:
        """Wait until it has ended and return its exit status."""
        self.close()
        self._listener.join()
        return self.process.wait()


def _workers(groups: list[list[str]], processes: int, configs: Sequence[FinetuneConfig]) -> int:
    """Return the number of workers where none is given."""
    if not groups:
        return max(cores() // processes, 1)
    if processes > 1 or not configs:
        return len(groups)
    gpus = [gpu for group in groups for gpu in group]
    pixels = max(pixels_of(config) for config in configs)
    return len(groups) * runs_per_gpu(pixels, smallest_memory(len(gpus)), cores() / len(groups))


def _reason(status: int) -> str:
    """Return the reason why a worker died."""
    if status >= 0:
        return f"its process ended with status {status}; see the logs"
    name = signal.Signals(-status).name
    hint = "; out of memory? Use fewer --workers" if name == "SIGKILL" else "; see the logs"
    return f"its process was killed by {name}{hint}"
