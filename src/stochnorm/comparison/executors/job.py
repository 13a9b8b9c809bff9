"""One job of a comparison and its outcome, the same for every executor."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import traceback
import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from stochnorm.errors import ran_out, reason_of
from stochnorm.files import write_text
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run, RunInUseError

__all__ = ["Job", "Outcome", "cores", "failed", "perform"]


@dataclass(frozen=True)
class Job:
    """A run to start or resume; with `trials`, a search."""

    config: FinetuneConfig
    """Settings, with `out`."""
    trials: int = 0
    """Number of trials of a search; 0 for a run."""
    strengths: bool = False
    """Whether a search chooses the strengths of the methods alone."""
    processes: int = 1
    """Processes per run (torchrun)."""

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `as_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        return cls(**{**content, "config": FinetuneConfig.from_dict(content["config"])})

    def as_json(self) -> str:
        """Write the job as one line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job."""

    state: Literal["done", "failed", "busy", "stopped"]
    """State of the job; busy: another process works on it; stopped: it can be resumed."""
    reason: str = ""
    """Reason for the state, one line."""
    warnings: tuple[str, ...] = ()
    """Warnings of the job, such as unreadable images."""

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Read what `as_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        return cls(**{**content, "warnings": tuple(content["warnings"])})

    def as_json(self) -> str:
        """Write the outcome as one line of JSON."""
        return json.dumps(asdict(self))


def perform(job: Job) -> Outcome:
    """Do a job in this process. An error is written to the run's `failure.json` and not raised.

    The process keeps the pre-trained network and the images on the device for the next job, one of each.
    """
    from stochnorm.data.images import resident
    from stochnorm.models import kept

    kept.keep()
    resident.keep()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default", UserWarning)
        outcome = _perform(job)
    _free_memory()
    said = (str(warning.message) for warning in caught if issubclass(warning.category, UserWarning))
    return replace(outcome, warnings=tuple(dict.fromkeys([*outcome.warnings, *said])))


def _perform(job: Job) -> Outcome:
    run = Run.of(job.config)
    said: tuple[str, ...] = ()
    try:
        if job.trials:
            from stochnorm.tuning.space import search_space, strength_space
            from stochnorm.tuning.tune import tune

            space = strength_space if job.strengths else search_space
            tune(job.config, trials=job.trials, space=space, quiet=True)
        elif job.processes > 1:
            said = _torchrun(job, run)
        else:
            from stochnorm.training.finetune import finetune

            finetune(replace(job.config, resume=run.config.is_file()), quiet=True)
    except RunInUseError as error:
        return Outcome("busy", str(error))
    except KeyboardInterrupt as stop:
        return Outcome("stopped", str(stop))
    except Exception as error:
        return failed(job, _reason(error), traceback.format_exc())
    run.failure.unlink(missing_ok=True)
    return Outcome("done", warnings=said)


def _reason(error: Exception) -> str:
    """Return one line for an error."""
    import torch

    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, torch.OutOfMemoryError):
        first = reason.partition(". ")[0]
        return f"{first}: give fewer --workers, so that fewer runs share a GPU, or --accumulate 2"
    return reason if isinstance(error, OSError) and not ran_out(error) else reason_of(error)


def _free_memory() -> None:
    """Give back what the job had: objects in cycles, and the device's memory that PyTorch holds for later use."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def failed(job: Job, reason: str, details: str = "") -> Outcome:
    """Return the outcome of a failed job, and write its reason to `failure.json` if the disk allows."""
    run = Run.of(job.config)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        write_text(run.failure, json.dumps({"reason": reason, "traceback": details}, indent=2) + "\n")
    except OSError as error:
        reason += f" (and {error})"
    return Outcome("failed", reason)


def _torchrun(job: Job, run: Run) -> tuple[str, ...]:
    """Fine-tune with several processes on this machine; return their warnings."""
    run.path.parent.mkdir(parents=True, exist_ok=True)
    settings = run.path.with_name(f".{run.path.name}.json")
    write_text(settings, json.dumps(asdict(job.config)) + "\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.processes}"]
    command += ["-m", "stochnorm", "finetune", job.config.data, "--settings", str(settings)]
    command += ["--resume"] if run.config.is_file() else []
    try:
        status, lines = _run(command)
    finally:
        settings.unlink(missing_ok=True)
    if status and not run.result.is_file():
        reasons = [line.partition("error: ")[2] for line in lines if "error: " in line]
        raise ValueError(reasons[0] if reasons else f"torchrun ended with status {status}: {lines[-1:]}")
    return tuple(line.removeprefix("warning: ") for line in lines if line.startswith("warning: "))


def _run(command: list[str]) -> tuple[int, list[str]]:
    """Run torchrun and return its exit status and the lines of its standard error.

    An interrupt is passed to torchrun and raised once it has ended.
    """
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 (ours)
        while True:
            try:
                _, errors = process.communicate(timeout=1)  # Ray's interrupts do not end a wait
            except subprocess.TimeoutExpired:
                continue
            except KeyboardInterrupt:
                process.terminate()  # its processes answer with a checkpoint
                process.communicate()
                raise
            return process.returncode, errors.strip().splitlines()


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
