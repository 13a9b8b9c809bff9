"""A run is a directory: its settings, its progress, and what it leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from stochnorm.files import write_text
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.trackers import TRACKERS, remove_tracker

__all__ = ["Run", "RunInUseError", "data_name", "run_name"]

State = Literal["absent", "running", "failed", "stopped", "done"]


class RunInUseError(FileExistsError):
    """Another process works on the run."""


def data_name(data: str) -> str:
    """A short name of DATA: its folder's or file's, of a ``manifest.csv`` that of its folder.

    Example:
        >>> data_name("photos/manifest.csv"), data_name("photos/birds.csv"), data_name("photos/")
        ('photos', 'birds', 'photos')
    """
    path = Path(data).resolve()
    return path.parent.name if path.name == "manifest.csv" else path.stem


def run_name(config: FinetuneConfig) -> str:
    """DATA-METHOD-HASH, by the settings that the result depends on."""
    digest = hashlib.sha256(json.dumps(config.result_fields(), sort_keys=True).encode()).hexdigest()[:8]
    return f"{data_name(config.data)}-{config.method}-{digest}"


class Run:
    """The files of one fine-tuning run.

    ========================  ==============================================================
    ``config.json``           the settings
    ``split.csv``             the images used and their split, as a manifest
    ``metrics.jsonl``         a line per validation: step, epoch, loss, accuracy, speed
    ``curves.png``, ``.svg``  loss and accuracy over the steps
    ``checkpoint.pt``         what ``--resume`` goes on from; removed when the run is done
    ``model.safetensors``     the selected model, with class names and preprocessing
    ``test_predictions.csv``  path, label, predicted class, its probability
    ``confusion_matrix.csv``  test images: a row per true class, a column per predicted one
    ``result.json``           test and validation metrics, counts, cost, environment
    ``report.html``           a page about the run, see :mod:`stochnorm.report`
    ``failure.json``          in a comparison: why the run failed
    ``csv/metrics.csv``, ..    a folder per tracker, see :mod:`stochnorm.runs.trackers`
    ========================  ==============================================================
    """

    def __init__(self, path: Path) -> None:
        self.config = path / "config.json"
        self.split = path / "split.csv"
        self.metrics = path / "metrics.jsonl"
        self.curves = path / "curves.png"
        self.curves_svg = path / "curves.svg"
        self.checkpoint = path / "checkpoint.pt"
        self.model = path / "model.safetensors"
        self.predictions = path / "test_predictions.csv"
        self.confusion = path / "confusion_matrix.csv"
        self.result = path / "result.json"
        self.report = path / "report.html"
        self.failure = path / "failure.json"
        self.files: tuple[Path, ...] = tuple(vars(self).values())  # those above; nothing else is ever removed
        self.path = path

    @classmethod
    def of(cls, config: FinetuneConfig) -> Run:
        """The run's directory: ``out``, or one named by the settings."""
        if config.out:
            return cls(Path(config.out))
        return cls(Path("runs") / run_name(config))

    @property
    def state(self) -> State:
        """What its files say, and whether a process holds it."""
        if self.result.is_file():
            return "done"
        try:
            with self.held():
                pass
        except RunInUseError:
            return "running"
        if self.failure.is_file():
            return "failed"
        return "stopped" if self.config.is_file() else "absent"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes out, until the block or the process ends; clears up what a killed one was writing.

        Raises:
            RunInUseError: Another process holds it.
        """
        self._check_no_file()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), blocking=False)
        try:
            with lock:
                for file in self.files:
                    for half in self.path.glob(f".{file.stem}-????????{file.suffix}"):  # of files.atomic_path
                        half.unlink()
                yield
        except Timeout as error:
            raise RunInUseError(
                f"another process works on {self.path}; wait for it, or give another directory with --out"
            ) from error

    def check(self, config: FinetuneConfig) -> None:
        """Whether the settings may use the directory.

        A run that stopped before its first checkpoint is nothing to lose: the next one starts anew over it.

        Raises:
            FileExistsError: It holds a run already, and neither ``resume`` nor ``overwrite`` is set; or other files.
            ValueError: It lies among the images; or ``resume``, but the run there was started with other settings
                (names them), or its settings are damaged.
            FileNotFoundError: ``resume``, but there is no run.
        """
        self.check_place(config)
        if config.resume:
            self._check_same(config)
        elif self._settings():
            finished, begun = self.result.is_file(), self.checkpoint.is_file()
            if (finished or begun) and not config.overwrite:
                state = "a finished run" if finished else "an unfinished run: add --resume to go on"
                raise FileExistsError(f"{self.path} holds {state}; --overwrite starts anew, --out DIR goes elsewhere")
        elif self.path.is_dir() and set(self.path.iterdir()) - {self.failure}:
            raise FileExistsError(f"{self.path} holds other files; give another directory with --out")

    def open(self, config: FinetuneConfig) -> None:
        """Make the directory, without the files of a run before; with ``resume`` leave it as it is."""
        self.check(config)
        if config.resume:
            return
        for file in set(self.files) - {self.config}:  # which is replaced, so that this stays a run's directory
            file.unlink(missing_ok=True)
        for tracker in TRACKERS:
            remove_tracker(self.path, tracker)
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.config, json.dumps(asdict(config), indent=2) + "\n")

    def check_place(self, config: FinetuneConfig) -> None:
        """Whether there may be such a directory at all."""
        self._check_no_file()
        data = Path(config.data)
        if data.is_dir() and self.path.resolve().is_relative_to(data.resolve()):
            raise ValueError(
                f"the run's directory {self.path} lies inside the images' folder {data}, whose folders are classes; "
                "give one outside with --out"
            )

    def _check_no_file(self) -> None:
        there = next((path for path in (self.path, *self.path.parents) if path.exists()), self.path)
        if there.is_file():
            raise FileExistsError(f"{there} is a file, no directory for a run; give another with --out")

    def _settings(self) -> dict[str, Any] | None:
        """What ``config.json`` holds; None where it is damaged or some other program's."""
        try:
            settings = json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return settings if isinstance(settings, dict) and "method" in settings else None

    def _check_same(self, config: FinetuneConfig) -> None:
        if not self.config.is_file():
            raise FileNotFoundError(f"nothing to resume: there is no run in {self.path}; leave out --resume to start")
        before = self._settings()
        if before is None:
            raise ValueError(f"{self.config} is damaged, or not of a run; start anew elsewhere with --out DIR")
        changed = [
            f"{name} was {before.get(name)!r}, now {value!r}"
            for name, value in json.loads(json.dumps(config.result_fields())).items()
            if before.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"cannot resume {self.path} with other settings: {'; '.join(changed)}; "
                "give those it was started with, or start anew with --overwrite"
            )

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """All lines anew, so that none of an interrupted run stands twice."""
        write_text(self.metrics, "".join(json.dumps(record, allow_nan=False) + "\n" for record in history))

    def read_metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def read_result(self) -> dict[str, Any]:
        """What ``result.json`` holds; ValueError where it is damaged."""
        try:
            result: dict[str, Any] = json.loads(self.result.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self.result} is damaged ({error}); start anew with --overwrite") from error
        return result
