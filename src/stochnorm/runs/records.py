"""What runs came to, a line of JSON each: all that tables, statistics and the report's overview are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from stochnorm.files import write_text
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run, data_name

__all__ = ["Cell", "Failure", "Record", "format_records", "read_records", "record_of", "write_records"]

LABELS = "labels.json"
"""In a grid's directory: what its runs are called in tables, by the names of their directories."""

_SMALL = ("images", "loss", "top1", "top1_interval", "mean_per_class", "mean_auc", "mean_auc_interval", "ece")


class Cell(NamedTuple):
    """What runs have in common that are compared with each other."""

    data: str
    backbone: str
    rate: float


@dataclass(frozen=True)
class Record:
    """One finished run."""

    run: str
    """Its directory, as it was given or relative to the grid's."""
    variant: str
    """What is compared, for people: the method, or what a grid calls it (``p = 0.3``)."""
    data: str
    """Short name of the data set."""
    backbone: str
    rate: float
    """Percent of the training images."""
    data_seed: int
    seed: int
    """With data_seed: runs of a cell that agree in both saw the same images in the same order."""
    score: str
    """The metric that selects and is compared: top1 or mean_auc."""
    classes: int
    images: dict[str, int]
    """By split."""
    validation: dict[str, Any]
    """Metrics in percent (but loss and images), without those of single classes."""
    test: dict[str, Any] | None
    """The same; None without a test split."""
    step: int
    """Of the selected model."""
    cost: dict[str, float | None]
    """seconds, images_per_second of training; peak_memory_gigabytes of the job, None where the system does not say."""
    settings: dict[str, Any]
    """All that the result depends on: FinetuneConfig.result_fields."""
    environment: dict[str, Any]
    scale: str = ""
    """Empty, or what makes the run no real experiment: ``small``."""

    @property
    def cell(self) -> Cell:
        return Cell(self.data, self.backbone, self.rate)

    @property
    def repeat(self) -> tuple[int, int]:
        """What pairs the runs of a cell: same images, same order."""
        return self.data_seed, self.seed

    @property
    def value(self) -> float | None:
        """The test score in percent; None without a test split, or where it is undefined."""
        value: float | None = (self.test or {}).get(self.score)
        return value


@dataclass(frozen=True)
class Failure:
    """A run that came to nothing."""

    variant: str
    data: str
    backbone: str
    rate: float
    repeat: int
    run: str
    """Its directory, relative to the comparison's."""
    reason: str


def record_of(run: Run, variant: str = "", name: str = "", scale: str = "") -> Record:
    """The record of a finished run.

    Args:
        run: Its directory.
        variant: What tables call it; empty: its method.
        name: What to call the directory; empty: its path.
        scale: See :class:`Record`.

    Raises:
        FileNotFoundError: The run is not finished.
        ValueError: Its result is damaged.
    """
    if not run.result.is_file():
        raise FileNotFoundError(f"{run.path}: no finished run; give a directory that holds result.json")
    result = run.read_result()
    try:
        # Through the class, so that fields that are younger than the file take their defaults.
        config = FinetuneConfig.from_dict(result["config"])
        return Record(
            run=name or str(run.path),
            variant=variant or config.method,
            data=data_name(config.data),
            backbone=config.backbone,
            rate=config.rate,
            data_seed=config.data_seed,
            seed=config.seed,
            score=result["score"],
            classes=len(result["classes"]),
            images=result["images"],
            validation=_small(result["validation"]),
            test=_small(result["test"]) if result["test"] else None,
            step=result["selected"]["step"],
            cost=result["cost"],
            settings=json.loads(json.dumps(config.result_fields())),  # as a file has them
            environment=result["environment"],
            scale=scale,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run.result}: lacks {error}; made by another version? Run it again") from error


def read_records(paths: Iterable[str | Path]) -> list[Record]:
    """The records of finished runs.

    Args:
        paths: Directories of runs, directories of grids (or any that hold runs, at any depth), and files that
            :func:`write_records` wrote. A run met twice counts once.

    Raises:
        FileNotFoundError: There is no such path, or no finished run in it.
        ValueError: A file is damaged; names it.
    """
    records: dict[str, Record] = {}
    for path in map(Path, paths):
        found = _from_file(path) if path.is_file() else _from_directory(path)
        if not found:
            raise FileNotFoundError(
                f"{path}: no finished run there; give directories of runs, of grids, or a records.jsonl"
            )
        for record in found:
            records.setdefault(record.run, record)
    return list(records.values())


def format_records(records: Sequence[Record]) -> str:
    """A line of JSON each."""
    return "".join(json.dumps(asdict(record)) + "\n" for record in records)


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Writes :func:`format_records` atomically."""
    write_text(path, format_records(records))


def _from_file(path: Path) -> list[Record]:
    known = {f.name for f in fields(Record)}
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            content = json.loads(line)
            records.append(Record(**{name: value for name, value in content.items() if name in known}))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: is no record of a run ({error}); remove the line") from error
    return records


def _from_directory(path: Path) -> list[Record]:
    labels: dict[Path, dict[str, str]] = {}
    records = []
    for result in sorted(path.rglob("result.json")):
        run = Run(result.parent)
        if "trials" in result.relative_to(path).parts:  # a search's runs were chosen among, and have no test
            continue
        home = run.path.parent.parent
        if home not in labels:
            labels[home] = _labels(home / LABELS)
        label = labels[home].get(run.path.name, "")
        records.append(record_of(run, label, scale=labels[home].get("", "")))
    return records


def _labels(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); start the same comparison again, which mends it") from error


def _small(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in _SMALL if name in metrics}
