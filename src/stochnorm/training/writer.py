"""What validations leave in the run directory, and when it is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from stochnorm.files import set_aside
from stochnorm.models.saved import hold_classifier
from stochnorm.training.checkpoint import save_checkpoint
from stochnorm.training.curves import plot_curves
from stochnorm.training.job import Job
from stochnorm.training.selection import selected

__all__ = ["Writer"]

_WRITE_EVERY = {"cuda": 10.0}  # seconds between two writes, by device; on others each validation is written
_DRAW_EVERY = 20.0  # seconds of training between pictures of the curves


class Writer:
    """Writes what validations leave: the best model, metrics and curves, then the checkpoint, then the trackers.

    A write takes longer than many steps of a GPU. So on a GPU a validation is written only if some seconds have passed
    since the last write, or at the last step; until then its model is held in the host's memory. All of it is
    written together: the model and the metrics are never behind the checkpoint, and a resumed run, which continues from
    the checkpoint, logs no step twice. A run that is killed computes again what was not written.

    Several processes write at each validation, since their clocks differ.

    Args:
        job: The job.
        state: The state of the training, which the caller keeps up to date: `step`, `history`, `model`, `optimizer`...
        kept: Gives the network the weights to keep, within a block.
    """

    def __init__(
        self, job: Job, state: dict[str, Any], kept: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self._job, self._state, self._kept, self._ended = job, state, kept, False
        fabric = job.fabric
        self._every = _WRITE_EVERY.get(fabric.device.type, 0.0) if fabric.world_size == 1 else 0.0
        self._last = time.monotonic()
        self._unwritten: list[dict[str, Any]] = []
        self._save_model: Callable[[Path], None] | None = None

    def validated(self, *, ends: bool = False) -> None:
        """Take the last record of the history and its model; write them if it is time; tell who waits for the record.

        All processes call it.

        Args:
            ends: Whether the training ends before its last step.
        """
        config, history = self._job.config, self._state["history"]
        record, first = history[-1], self._job.fabric.is_global_zero
        self._unwritten.append(record)
        if first and selected(history, config.select) is record:
            notes = {"method": config.method, "step": record["step"], "run": self._state["run"]}
            with self._kept():
                self._save_model = hold_classifier(self._job.classifier, notes)
        self._ended = ends or self._state["step"] == config.steps
        if self._ended or time.monotonic() - self._last >= self._every:
            self.write()
        if first and self._job.validated is not None:
            try:
                self._job.validated(record)
            except BaseException:  # who is told may end the training
                if self._unwritten:
                    self.write()
                raise

    def write(self) -> None:
        """Write the state, and what of the validations is not yet written. All processes call it."""
        self._write_results()
        save_checkpoint(self._job.fabric, self._job.run, self._state)
        self._log()  # after the checkpoint, so that a resumed run never logs a step twice
        self._last = time.monotonic()

    @contextmanager
    def rescuing(self) -> Iterator[None]:
        """Write the results of the validations before a value that is not finite.

        The state behind them is lost. A checkpoint that is older than the results is removed, so that a resumed run
        begins at the start, and not with a model of another history.
        """
        try:
            yield
        except FloatingPointError:
            if self._unwritten:
                self._job.run.forget_progress()
                self._write_results()
                self._log()
            raise

    def _write_results(self) -> None:
        """Write model, metrics and curves, if they have changed. The first process does it."""
        if not (self._unwritten and self._job.fabric.is_global_zero):
            return
        config, run, state = self._job.config, self._job.run, self._state
        history = state["history"]
        if self._save_model is not None:
            set_aside(run.model, run.previous_model)
            self._save_model(run.model)
            self._save_model = None
        run.write_metrics(history)
        seconds = history[-1]["seconds"]
        # Drawing takes longer than a short run's training between two validations.
        if self._ended or seconds >= state.get("drawn", 0.0) + _DRAW_EVERY:
            state["drawn"] = seconds
            plot_curves(history, selected(history, config.select), self._job.task.score_title, run.curves)

    def _log(self) -> None:
        for record in self._unwritten:
            self._job.trackers.log(record)
        self._unwritten.clear()
