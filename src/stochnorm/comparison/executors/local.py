"""Worker processes on this machine, with its threads and GPUs shared out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, TypeAlias, cast

import torch

from stochnorm.comparison.executors.job import Job, Outcome, cores, failed

__all__ = ["LocalExecutor"]

Answers: TypeAlias = "SimpleQueue[tuple[_Worker, str]]"


class LocalExecutor:
    """One job a worker at a time. A worker that dies takes its job alone with it, and is replaced.

    Args:
        workers: How many; 0: one per GPU (or group of GPUs that share a run), without GPUs one per core.
        threads: Of each worker; 0: the cores shared out.
        processes: That share a run, each on a GPU of its own if there are any.
        logs: Folder for what workers print.

    Attributes:
        slots: Jobs at a time.
    """

    def __init__(self, workers: int, threads: int, processes: int, logs: Path) -> None:
        gpus = _gpus()
        groups = [gpus[i : i + processes] for i in range(0, len(gpus) - processes + 1, processes)]
        self.slots = workers or len(groups) or max(cores() // processes, 1)
        self._threads = threads or max(cores() // (self.slots * processes), 1)
        self._gpus = [groups[i % len(groups)] if groups else [] for i in range(self.slots)]
        self._logs = logs
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, Job] = {}
        self._answers: Answers = SimpleQueue()
        self._free = list(range(self.slots))  # numbers of workers that are not started

    def start(self, job: Job) -> None:
        """Begin a job; at most ``slots`` at a time."""
        worker = self._idle.pop() if self._idle else self._start_worker()
        self._busy[worker] = job
        worker.tell(job)

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """The jobs that ended, at the latest after so many seconds."""
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
        return [(job, failed(job, _obituary(worker.wait())))]

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
    """A process of :mod:`.worker`, whose answers come into a queue; an empty one when it ends."""

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
                start_new_session=True,  # Ctrl-C reaches the comparison, which stops its workers in order
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
        with suppress(BrokenPipeError):  # it died between two jobs; the end of its answers says so
            self._jobs.write(job.as_json() + "\n")
            self._jobs.flush()

    def close(self) -> None:
        """Tell it to end; a running job writes its checkpoint first."""
        with suppress(BrokenPipeError):
            self._jobs.close()

    def wait(self) -> int:
        """Until it has ended; its exit status."""
        self.close()
        self._listener.join()
        return self.process.wait()


def _gpus() -> list[str]:
    """The names of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def _obituary(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status}; see the logs"
    name = signal.Signals(-status).name
    hint = "; out of memory? Give fewer --workers" if name == "SIGKILL" else "; see the logs"
    return f"its process was killed by {name}{hint}"
