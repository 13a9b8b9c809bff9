"""A run is a directory: its settings, its progress, and what it leaves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stochnorm.config import FinetuneConfig
from stochnorm.files import write_text

__all__ = ["Run"]


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
    ``result.json``           test and validation metrics, counts, cost, environment
    ========================  ==============================================================
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.split = path / "split.csv"
        self.metrics = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self.model = path / "model.safetensors"
        self.predictions = path / "test_predictions.csv"
        self.result = path / "result.json"

    @classmethod
    def of(cls, config: FinetuneConfig) -> Run:
        """The run's directory: ``out``, or one named by the settings."""
        if config.out:
            return cls(Path(config.out))
        digest = hashlib.sha256(json.dumps(config.result_fields(), sort_keys=True).encode()).hexdigest()[:8]
        return cls(Path("runs") / f"{Path(config.data).resolve().stem}-{config.norm}-{digest}")

    def check(self, config: FinetuneConfig) -> None:
        """Whether the settings may use the directory.

        Raises:
            FileExistsError: It holds a run already, and neither ``resume`` nor ``overwrite`` is set.
            ValueError: ``resume``, but the run there was started with other settings; names them.
            FileNotFoundError: ``resume``, but there is no run.
        """
        if config.resume:
            self._check_same(config)
        elif self._is_run():
            if not config.overwrite:
                state = "a finished run" if self.result.is_file() else "an unfinished run: add --resume to go on"
                raise FileExistsError(f"{self.path} holds {state}; --overwrite starts anew, --out DIR goes elsewhere")
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise FileExistsError(f"{self.path} holds other files; give another directory with --out")

    def open(self, config: FinetuneConfig) -> None:
        """Make the directory, without the files of a run before; with ``resume`` leave it as it is."""
        self.check(config)
        if config.resume:
            return
        for name in (
            "checkpoint.pt",
            "config.json",
            "curves.png",
            "curves.svg",
            "metrics.jsonl",
            "model.safetensors",
            "result.json",
            "split.csv",
            "test_predictions.csv",
        ):  # and nothing that is not a run's
            (self.path / name).unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.config, json.dumps(asdict(config), indent=2) + "\n")

    def _is_run(self) -> bool:
        """Whether the directory holds settings of a run, and not some other program's config.json."""
        try:
            return "norm" in json.loads(self.config.read_text())
        except (OSError, ValueError, TypeError):
            return False

    def _check_same(self, config: FinetuneConfig) -> None:
        if not self.config.is_file():
            raise FileNotFoundError(f"nothing to resume: there is no run in {self.path}; leave out --resume to start")
        before = json.loads(self.config.read_text())
        changed = [
            f"{name} was {before.get(name)!r}, now {value!r}"
            for name, value in config.result_fields().items()
            if before.get(name) != value
        ]
        if changed:
            raise ValueError(f"cannot resume {self.path} with other settings: {'; '.join(changed)}")

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """All lines anew, so that none of an interrupted run stands twice."""
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in history))

    def read_metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]

    def read_result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.result.read_text())
        return result
