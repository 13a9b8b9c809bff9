"""Trackers, which receive the metrics of a run in addition to its own files: Lightning's loggers by name."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stochnorm.files import sqlite_url, write_text

__all__ = ["TRACKERS", "Trackers", "remove_tracker", "tracker_names"]

_ID = "id.txt"


class _Tracker:
    """A logger and its peculiarities. It writes into the folder of its name in the run directory."""

    needs: tuple[str, ...] = ("lightning_fabric",)
    """Packages that it imports."""
    leaves: tuple[str, ...]
    """Patterns of the files that it writes into its folder."""
    logger: Any
    """Lightning's logger."""
    id: str | None = None
    """Identifier of its run, if the tracker can resume one; else its folder is rewritten."""
    logged: Container[int] = ()
    """Steps that a resumed run has already."""

    def __init__(self, folder: Path, settings: dict[str, Any], id: str | None) -> None:
        raise NotImplementedError

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log the metrics of a step."""
        self.logger.log_metrics(metrics, step)

    def close(self, status: str) -> None:
        """Close the logger; the status is `success` or `failed`."""
        self.logger.finalize(status)


class _CSV(_Tracker):
    leaves = ("metrics.csv",)

    def __init__(self, folder: Path, settings: dict[str, Any], id: str | None) -> None:
        from lightning_fabric.loggers.csv_logs import CSVLogger

        self.logger = CSVLogger(folder.parent.absolute(), name=None, version=folder.name, flush_logs_every_n_steps=1)


class _TensorBoard(_Tracker):
    needs = ("tensorboard", "lightning_fabric")
    leaves = ("events.out.tfevents.*",)

    def __init__(self, folder: Path, settings: dict[str, Any], id: str | None) -> None:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        self.logger = TensorBoardLogger(
            folder.parent.absolute(), name=None, version=folder.name, default_hp_metric=False
        )
        self._settings = settings

    def log(self, metrics: dict[str, float], step: int) -> None:
        if self._settings:  # its page of hyper-parameters needs metrics with them
            self.logger.log_hyperparams(self._settings, metrics, step)
            self._settings = {}
        else:
            self.logger.log_metrics(metrics, step)
        self.logger.save()


class _MLflow(_Tracker):
    needs = ("mlflow", "pytorch_lightning")
    leaves = ("mlflow.db*", "artifacts", _ID)

    def __init__(self, folder: Path, settings: dict[str, Any], id: str | None) -> None:
        from pytorch_lightning.loggers import MLFlowLogger

        for name in ("mlflow", "alembic", "pytorch_lightning.loggers.mlflow"):  # they print each table they create
            logging.getLogger(name).setLevel(logging.ERROR)
        folder = folder.resolve()
        elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
        if not elsewhere:
            folder.mkdir(exist_ok=True)
        self.logger = MLFlowLogger(
            os.environ.get("MLFLOW_EXPERIMENT_NAME", "stochnorm"),
            run_name=folder.parent.name,
            tracking_uri=elsewhere or sqlite_url(folder / "mlflow.db"),
            artifact_location=None if elsewhere else (folder / "artifacts").as_uri(),
            run_id=id,
        )
        try:
            self.id = self.logger.run_id
            self.logger.log_hyperparams(settings)
        finally:
            if not elsewhere:  # MLflow sets it, and the next run of this process would read it
                os.environ.pop("MLFLOW_TRACKING_URI", None)
        if id:
            self.logged = {point.step for point in self.logger.experiment.get_metric_history(id, "train/loss")}


class _WandB(_Tracker):
    needs = ("wandb", "pytorch_lightning")
    leaves = ("run-*", "offline-run-*", "latest-run", "debug*.log", _ID)

    def __init__(self, folder: Path, settings: dict[str, Any], id: str | None) -> None:
        from pytorch_lightning.loggers import WandbLogger

        self.logger = WandbLogger(
            name=folder.resolve().parent.name,
            save_dir=folder.parent,  # wandb creates the folder wandb in it
            project=os.environ.get("WANDB_PROJECT", "stochnorm"),
            id=id,
        )
        run = self.logger.experiment
        self.logger.log_hyperparams(settings)
        self.id = None if run.offline or run.disabled else run.id
        if id:
            self.logged = range(int(run.summary.get("trainer/global_step") or 0) + 1)

    def close(self, status: str) -> None:
        self.logger.finalize(status)
        self.logger.experiment.finish(exit_code=int(status != "success"))


TRACKERS: dict[str, type[_Tracker]] = {"csv": _CSV, "tensorboard": _TensorBoard, "mlflow": _MLflow, "wandb": _WandB}
"""Trackers by name; the folder and the extra to install have the same name."""


def tracker_names(log: str) -> tuple[str, ...]:
    """Return the names of trackers in the option `--log`, without duplicates.

    Raises:
        ValueError: A name is unknown.

    Example:
        >>> tracker_names("csv, mlflow"), tracker_names("none")
        (('csv', 'mlflow'), ())
    """
    names = tuple(dict.fromkeys(name.strip() for name in log.split(",")))
    if names in (("",), ("none",)):
        return ()
    if unknown := [name for name in names if name not in TRACKERS]:
        raise ValueError(f"log must be {', '.join(TRACKERS)}, joined by commas, or none alone; got {unknown[0]!r}")
    return names


class Trackers:
    """The trackers of a run. If one of them fails, the run continues without it, with a warning.

    Names of metrics are flat: `train/loss`, `val/top1`, `penalty/l2sp`, `lr`, `images_per_second`, `test/top1`.

    Args:
        names: Names of the trackers; with none, all methods do nothing.
        path: Run directory.
        settings: Settings by name; those of a group with a dot, as on the command line.

    Raises:
        ModuleNotFoundError: A tracker's package is not installed.
    """

    def __init__(self, names: Sequence[str], path: Path, settings: dict[str, Any]) -> None:
        for name in names:
            try:
                for package in TRACKERS[name].needs:
                    importlib.import_module(package)
            except ModuleNotFoundError as error:
                needed = " and ".join(TRACKERS[name].needs)
                raise ModuleNotFoundError(f"--log {name} needs {needed}: pip install 'stochnorm[{name}]'") from error
        self._names, self._path, self._settings = names, path, settings
        self._open: dict[str, _Tracker] = {}

    @contextmanager
    def recording(self, history: Sequence[dict[str, Any]]) -> Iterator[None]:
        """Open the trackers and log the records of a resumed run; close them as failed on an exception.

        A tracker's run with an id is resumed and gets the steps that it lacks; files are rewritten. So each step is
        logged once, even if the run was killed.

        Args:
            history: Records of the validations before the run was resumed.
        """
        for name in self._names:
            with self._surviving(name):
                self._open[name] = self._start(name)
        for record in history:
            self.log(record)
        try:
            yield
        except BaseException:
            self._each(lambda tracker: tracker.close("failed"))
            raise

    def log(self, record: Mapping[str, Any]) -> None:
        """Log the record of a validation."""
        step, metrics = record["step"], _metrics(record)
        self._each(lambda tracker: None if step in tracker.logged else tracker.log(metrics, step))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Log the test metrics at the step of the selected model and close the trackers."""
        tested = {f"test/{name}": value for name, value in _numbers(result["test"] or {}).items()}
        if tested:
            self._each(lambda tracker: tracker.log(tested, result["selected"]["step"]))
        self._each(lambda tracker: tracker.close("success"))

    def _start(self, name: str) -> _Tracker:
        id_file = self._path / name / _ID
        before = id_file.read_text(encoding="utf-8").strip() if id_file.is_file() else None
        if before is None:
            remove_tracker(self._path, name)
        tracker = TRACKERS[name](self._path / name, self._settings, before)
        if tracker.id is not None and before is None:
            id_file.parent.mkdir(exist_ok=True)
            write_text(id_file, tracker.id + "\n")
        return tracker

    def _each(self, do: Callable[[_Tracker], None]) -> None:
        for name in list(self._open):
            with self._surviving(name):
                do(self._open[name])

    @contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # any error: an unreachable server, a full disk, a login
            self._open.pop(name, None)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"--log {name} failed ({reason}); the run continues without it", stacklevel=3)


def remove_tracker(path: Path, name: str) -> None:
    """Remove the files of a tracker from a run directory, and its folder if it is empty then."""
    for pattern in TRACKERS[name].leaves:
        for found in (path / name).glob(pattern):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink()
    with suppress(OSError):  # missing or not empty
        (path / name).rmdir()


def _metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers in the record of a validation by the trackers' names."""
    metrics = {}
    for name, value in _numbers(record).items():
        kind, _, rest = name.partition("_")
        metrics[f"{kind}/{rest}" if kind in ("train", "val", "penalty") else name] = value
    del metrics["step"]
    return metrics


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if isinstance(value, (int, float))}
