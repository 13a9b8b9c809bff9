"""Records of finished runs, one line of JSON each: the input of tables, statistics and reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from stochnorm.files import write_text
from stochnorm.kinds import check_kinds, parse_json, read_json
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.kinds import RecordKind
from stochnorm.runs.names import data_name

__all__ = ["Cell", "Failure", "Record", "format_records", "read_records", "record_of", "write_records"]

LABELS = "labels.json"
"""File in a comparison's directory: the variant of each run, by the name of its directory."""

_SMALL = (
    "images",
    "loss",
    "top1",
    "top1_interval",
    "mean_per_class",
    "macro_f1",
    "majority",
    "mean_auc",
    "mean_auc_interval",
    "ece",
)


class Cell(NamedTuple):
    """The data set, backbone and rate that runs must share to be compared with each other."""

    data: str
    backbone: str
    rate: float


@dataclass(frozen=True)
class Record:
    """One finished run."""

    run: str
    """Run directory, as it was given or relative to the comparison's directory."""
    variant: str
    """Name of what is compared: the method, or the label of the grid's variant (`p = 0.3`)."""
    data: str
    """Short name of the data set."""
    backbone: str
    rate: float
    """Percentage of the training images."""
    data_seed: int
    seed: int
    """Training seed. Runs of a cell with equal `data_seed` and `seed` saw the same images in the same order."""
    score: str
    """Metric that selects models and is compared: `top1` or `mean_auc`."""
    classes: int
    """Number of classes."""
    images: dict[str, int]
    """Number of images by split."""
    validation: dict[str, Any]
    """Validation metrics, in percent except loss and images, without those of single classes."""
    test: dict[str, Any] | None
    """Test metrics likewise; None without a test split."""
    step: int
    """Step of the selected model."""
    cost: dict[str, float | None]
    """Training time (`seconds`), `images_per_second`, and `peak_memory_gigabytes`, None where it is unknown."""
    settings: dict[str, Any]
    """Settings that change the result (`FinetuneConfig.result_fields`)."""
    environment: dict[str, Any]
    """Versions, device and precision of the run."""
    scale: str = ""
    """Label of a run that is no real experiment, such as `small`; else empty."""
    probe: dict[str, Any] = field(default_factory=dict)
    """What the linear probe reached on validation images, if the head is the probe or began as it; else empty."""

    @property
    def cell(self) -> Cell:
        """Cell of the run."""
        return Cell(self.data, self.backbone, self.rate)

    @property
    def repeat(self) -> tuple[int, int]:
        """Key that pairs runs of a cell with the same images in the same order."""
        return self.data_seed, self.seed

    @property
    def value(self) -> float | None:
        """Test score in percent; None without a test split or where it is undefined."""
        value: float | None = (self.test or {}).get(self.score)
        return value


@dataclass(frozen=True)
class Failure:
    """One failed run."""

    variant: str
    data: str
    backbone: str
    rate: float
    repeat: int
    run: str
    """Run directory, relative to the comparison's directory."""
    reason: str


def record_of(run: Run, variant: str = "", name: str = "", scale: str = "") -> Record:
    """Return the record of a finished run.

    Args:
        run: The run.
        variant: Name in tables; empty: its method.
        name: Name of its directory in the record; empty: its path.
        scale: Label, as in [stochnorm.Record][].

    Raises:
        FileNotFoundError: The run is not finished.
        ValueError: Its result is damaged.
    """
    if not run.result.is_file():
        raise FileNotFoundError(f"{run.path}: no finished run; name a directory with a result.json")
    result = run.read_result()
    try:
        # By the class, so that settings that are newer than the file take their defaults.
        check_kinds(FinetuneConfig, result["config"])
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
            probe=result.get("probe", {}),
        )
    except KeyError as error:
        raise ValueError(f"{run.result}: {error} is missing; was it written by another version? Rerun it") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{run.result}: {error}; was it written by another version? Rerun it") from error


def read_records(paths: Iterable[str | Path]) -> list[Record]:
    """Return the records of finished runs.

    Args:
        paths: Run directories, comparison directories (or any directory with runs at any depth), and files that
            `write_records` wrote. A run that is found twice counts once.

    Raises:
        FileNotFoundError: A path does not exist or has no finished run.
        ValueError: A file is damaged.
    """
    records: dict[str, Record] = {}
    for path in map(Path, paths):
        found = _from_file(path) if path.is_file() else _from_directory(path)
        if not found:
            raise FileNotFoundError(
                f"{path}: no finished run there; name run directories, comparison directories or a records.jsonl"
            )
        for record in found:
            records.setdefault(record.run, record)
    return list(records.values())


def format_records(records: Sequence[Record]) -> str:
    """Format records, one line of JSON each."""
    return "".join(json.dumps(_content(record)) + "\n" for record in records)


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write records to a file, one line of JSON each."""
    write_text(path, format_records(records))


def _content(record: Record) -> dict[str, Any]:
    """Return the fields of a record; without `probe` if it is empty, as in files of earlier versions."""
    content = asdict(record)
    return content if record.probe else {name: value for name, value in content.items() if name != "probe"}


def _from_file(path: Path) -> list[Record]:
    known = {f.name for f in fields(Record)}
    records = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise ValueError(f"{path}: not a file of records ({error}); name a records.jsonl") from error
    for number, line in enumerate(lines, start=1):
        try:
            content = parse_json(line, RecordKind)
            check_kinds(Record, content)
            check_kinds(FinetuneConfig, content["settings"])
            for metrics in (content["validation"], content["test"]):
                if metrics is not None and content["score"] not in metrics:
                    raise ValueError(f"{content['score']} is missing")
            records.append(Record(**{name: value for name, value in content.items() if name in known}))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a record of a run ({error}); remove the line") from error
    return records


def _from_directory(path: Path) -> list[Record]:
    labels: dict[Path, dict[str, str]] = {}
    records = []
    for result in sorted(path.rglob("result.json")):
        run = Run(result.parent)
        if _is_part(result, path):
            continue
        home = run.path.parent.parent
        if home not in labels:
            labels[home] = _labels(home / LABELS)
        label = labels[home].get(run.path.name, "")
        records.append(record_of(run, label, scale=labels[home].get("", "")))
    return records


def _is_part(result: Path, path: Path) -> bool:
    """Return whether a result below a path is that of a part of another run: of a search, or a fold."""
    folders = result.relative_to(path).parts
    in_search = not {"trials", "candidates"}.isdisjoint(folders)  # they have no test
    of_run = any(
        name == "folds" and path.joinpath(*folders[:i], "config.json").is_file() for i, name in enumerate(folders)
    )
    return in_search or of_run


def _labels(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    labels: dict[str, str] = read_json(path, dict[str, str], "rerun the same comparison to repair it")
    return labels


def _small(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in _SMALL if name in metrics}
