"""The directory of a run: its settings, its progress and its results."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from stochnorm.files import atomic_path, locked, refuse_url, write_text
from stochnorm.kinds import parse_json, read_json
from stochnorm.methods.catalogue import concerns
from stochnorm.runs.config import BOOKKEEPING, FinetuneConfig, added
from stochnorm.runs.kinds import ResultKind, is_validation
from stochnorm.runs.names import run_name
from stochnorm.runs.paths import FROM, find_again, plain_path, working_directory
from stochnorm.runs.trackers import TRACKERS, remove_tracker

__all__ = ["Run", "RunInUseError"]

State = Literal["absent", "running", "failed", "stopped", "done"]


class RunInUseError(FileExistsError):
    """An error: another process works on the run."""


class Run:
    """The files of one run.

    | file | content |
    |---|---|
    | `config.json` | the settings |
    | `split.csv` | the images and their split, as a manifest |
    | `images.csv` | size, times and digest of each image: a run is not continued on others of the same names |
    | `metrics.jsonl` | one line per validation: step, epoch, loss, score, speed |
    | `curves.png`, `.svg` | loss and score over the steps |
    | `checkpoint.pt` | the state to resume from; removed when the run is done |
    | `model.safetensors` | the selected model, with class names and preprocessing |
    | `checkpoint.previous.pt`, `model.previous.safetensors` | those before, where the last ones are damaged; removed |
    | `test_predictions.csv` | path, label, predicted class and probabilities of each test image |
    | `confusion_matrix.csv` | counts of test images: a row per true class, a column per predicted class |
    | `result.json` | test and validation metrics, counts, cost, environment |
    | `report.html` | the report of the run |
    | `failure.json` | in a comparison: why the run failed |
    | `auto.json` | with method `auto`: what was tried and planned so far |
    | `candidates/` | with method `auto`: the runs that were tried; with `soup`: those that went into it |
    | `folds/` | with `folds`: the runs `1`, `2`, ..., that of the model for use, `final`, and their lists of images |
    | `csv/metrics.csv` and others | one folder per tracker ([stochnorm.runs.trackers][]) |
    """

    def __init__(self, path: Path) -> None:
        self.config = path / "config.json"
        self.split = path / "split.csv"
        self.images = path / "images.csv"
        self.metrics = path / "metrics.jsonl"
        self.curves = path / "curves.png"
        self.curves_svg = path / "curves.svg"
        self.checkpoint = path / "checkpoint.pt"
        self.previous_checkpoint = path / "checkpoint.previous.pt"
        self.model = path / "model.safetensors"
        self.previous_model = path / "model.previous.safetensors"
        self.predictions = path / "test_predictions.csv"
        self.confusion = path / "confusion_matrix.csv"
        self.result = path / "result.json"
        self.report = path / "report.html"
        self.failure = path / "failure.json"
        self.search = path / "auto.json"
        self.files: tuple[Path, ...] = tuple(vars(self).values())  # all of the above; no other file is ever removed
        self.candidates = path / "candidates"  # folders of runs, after `files`
        self.folds = path / "folds"
        self.path = path

    @classmethod
    def of(cls, config: FinetuneConfig) -> Run:
        """Return the run of some settings: in `out`, or in a directory named by the settings."""
        if config.out:
            return cls(Path(config.out))
        return cls(Path("runs") / run_name(config))

    @property
    def state(self) -> State:
        """State of the run, from its files and from whether a process holds it."""
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

    @property
    def identity(self) -> str:
        """Digest of the settings that change the result, for its checkpoint and model; empty before they are there."""
        settings = self._settings()
        if settings is None:
            return ""
        settings = {name: value for name, value in settings.items() if name not in (*BOOKKEEPING, FROM)}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out until the block or the process ends; remove half-written files of a killed process.

        Raises:
            RunInUseError: Another process holds the run.
        """
        self._check_no_file()
        place = self.path.resolve()  # one lock for all names of a directory
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with locked(place.with_name(f".{place.name}.lock"), timeout=0):
                for file in self.files:
                    for half in self.path.glob(f".{file.stem}-????????{file.suffix}"):  # of files.atomic_path
                        half.unlink()
                yield
        except Timeout as error:
            raise RunInUseError(
                f"another process works on {self.path}; wait for it, or choose another out (--out)"
            ) from error

    def data(self) -> str:
        """Return the images of the run, as they are found from the working directory.

        Raises:
            ValueError: Its settings are damaged.
        """
        return find_again(self.path, FinetuneConfig.load(self.config).data)

    def check(self, config: FinetuneConfig) -> None:
        """Raise an error unless a run with these settings may use the directory.

        A run that stopped before its first checkpoint may be replaced without `overwrite`.

        Raises:
            FileExistsError: The directory holds a run, and neither `resume` nor `overwrite` is set; or it holds other
                files.
            ValueError: The directory lies inside the images' folder; or, with `resume`, the run has other settings or
                its settings are damaged.
            FileNotFoundError: `resume` is set, but there is no run.
        """
        self.check_place(config)
        if config.resume:
            self._check_same(config)
        elif self._settings():
            finished = self.result.is_file()
            progress = (self.checkpoint, self.previous_checkpoint, self.search, self.candidates)
            begun = any(map(Path.exists, progress))
            begun |= any(self.folds.glob("*/config.json"))
            if (finished or begun) and not config.overwrite:
                state = "a finished run" if finished else "an unfinished run; resume it with resume=True (--resume)"
                raise FileExistsError(
                    f"{self.path} holds {state}; replace it with overwrite=True (--overwrite), or choose another out "
                    "(--out)"
                )
        elif self.path.is_dir() and set(self.path.iterdir()) - {self.failure}:
            raise FileExistsError(f"{self.path} holds other files; choose another out (--out)")

    def take(self, other: Run, *names: str) -> None:
        """Copy files of another run, by the names of their attributes; those that it lacks are left out."""
        for name in names:
            if getattr(other, name).is_file():
                with atomic_path(getattr(self, name)) as half:
                    shutil.copyfile(getattr(other, name), half)

    def open(self, config: FinetuneConfig) -> None:
        """Make the directory and remove the files of an earlier run; with `resume`, change nothing."""
        self.check(config)
        if config.resume:
            return
        for file in set(self.files) - {self.config}:  # it is replaced below, so that this stays a run directory
            file.unlink(missing_ok=True)
        for folder in (self.candidates, self.folds):
            if folder.is_dir():
                shutil.rmtree(folder)
        for tracker in TRACKERS:
            remove_tracker(self.path, tracker)
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.config, json.dumps(asdict(config) | {FROM: working_directory(self.path)}, indent=2) + "\n")

    def forget_progress(self) -> None:
        """Remove what a run is resumed from: it is finished, or begins again."""
        for file in (self.checkpoint, self.previous_checkpoint, self.previous_model):
            file.unlink(missing_ok=True)

    def check_place(self, config: FinetuneConfig) -> None:
        """Raise an error if the directory is a file or lies inside the images' folder."""
        self._check_no_file()
        data = Path(config.data)
        if data.is_dir() and self.path.resolve().is_relative_to(data.resolve()):
            raise ValueError(
                f"the run directory {self.path} lies inside the images' folder {data}, whose folders are classes; "
                "choose an out (--out) outside"
            )

    def _check_no_file(self) -> None:
        there = next((path for path in (self.path, *self.path.parents) if path.exists()), self.path)
        if not there.is_dir() and there.exists():
            raise FileExistsError(f"{there} is a file, not a run directory; choose another out (--out)")
        refuse_url(self.path)
        if "::" in str(self.path.absolute()):
            raise ValueError(f"{self.path}: Lightning takes :: for a chain of URLs; choose another out (--out)")
        if not self.path.resolve().name:
            raise FileExistsError(
                f"{self.path} is the root of the disk, not a run directory; choose another out (--out)"
            )

    def _settings(self) -> dict[str, Any] | None:
        """Return the content of `config.json`; None if it is missing, damaged or not of a run."""
        try:
            settings: dict[str, Any] = read_json(self.config, dict[str, Any], "")
        except (OSError, ValueError):
            return None
        return settings if "method" in settings else None

    def _check_same(self, config: FinetuneConfig) -> None:
        """Raise an error unless the run has these settings, except those that do not change the result.

        Another version may have had other defaults of what the method does not use.
        """
        if not self.config.is_file():
            raise FileNotFoundError(
                f"nothing to resume: no run in {self.path}; remove resume=True (--resume) to start one"
            )
        before = self._settings()
        if before is None:
            raise ValueError(f"{self.config} is damaged or not of a run; choose another out (--out) to start over")
        now = asdict(config)
        wanted = {name: now[name] for name in added() if name in before and name not in BOOKKEEPING}
        wanted |= config.result_fields()
        before["data"] = plain_path(str(before.get("data", "")))
        if before.get("head_lr_factor", 0) is None:  # resolved by the other settings, which are compared
            before["head_lr_factor"] = replace(config, head_lr_factor=None).head_lr_factor_used
        changed = [
            f"{name} was {before.get(name)!r}, now {value!r}"
            for name, value in json.loads(json.dumps(wanted)).items()
            if before.get(name) != value and concerns(name, config.method)
        ]
        if changed:
            raise ValueError(
                f"cannot resume {self.path} with other settings: {'; '.join(changed)}; "
                "use the settings of the run, or replace it with overwrite=True (--overwrite)"
            )

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Rewrite the file so that an interrupted run leaves no duplicate lines."""
        write_text(self.metrics, "".join(json.dumps(record, allow_nan=False) + "\n" for record in history))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the records of the validations.

        Raises:
            ValueError: The file is damaged.
        """
        try:
            history = [parse_json(line, Any) for line in self.metrics.read_text(encoding="utf-8").splitlines()]
            if odd := [number for number, record in enumerate(history, 1) if not is_validation(record)]:
                raise ValueError(f"line {odd[0]} is no validation")
        except ValueError as error:
            raise ValueError(f"{self.metrics} is damaged ({error}); {_REPLACE}") from error
        return history

    def read_result(self) -> dict[str, Any]:
        """Return the content of `result.json`.

        Raises:
            ValueError: The file is damaged.
        """
        result: dict[str, Any] = read_json(self.result, ResultKind, _REPLACE)
        missing = sorted({"selected", "cost", "environment", "method", "config"} - result.keys())
        missing += [name for name in ("validation", "test") if "score" in result and name not in result]
        empty = result.get("images", {}).get("val") == 0  # nothing was held out for validation
        for name in ("validation", "test"):  # the candidates of `auto` have none
            if name == "validation" and empty and result.get(name) == {}:
                continue
            if result.get(name) is not None and result.get("score", "") not in result[name]:
                missing.append(f"{name}.{result.get('score', 'score')}")
        if missing:
            raise ValueError(f"{self.result} is damaged ({missing[0]} is missing); {_REPLACE}")
        return result


_REPLACE = "replace the run with overwrite=True (--overwrite)"
