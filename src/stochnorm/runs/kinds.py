"""The kinds of values in the files of a run, by which damaged files are told."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

__all__ = ["FailureKind", "RecordKind", "ResultKind", "is_validation"]

Number = float | None
Interval = tuple[float, float] | None


class _Metrics(TypedDict, total=False):
    images: int
    loss: Number
    top1: Number
    top1_interval: Interval
    mean_per_class: Number
    macro_f1: Number
    majority: Number
    mean_auc: Number
    mean_auc_interval: Interval
    average_precision: Number
    ece: Number
    per_class: list[Number]
    per_class_precision: list[Number]
    per_class_f1: list[Number]
    per_class_interval: list[Interval] | None
    positives: list[int]


class _Cost(TypedDict, total=False):
    seconds: Number
    images_per_second: Number
    peak_memory_gigabytes: Number


class _Selected(TypedDict):
    step: int
    by: str


class _Probe(TypedDict, total=False):
    val_top1: Number
    val_mean_auc: Number
    val_loss: Number
    strength: Number
    chosen_by: str
    fitted_on: str
    images: int
    views: str
    warning: str


class _Fold(TypedDict):
    fold: int
    images: int
    interval: Interval
    validation: Number
    kept: str
    seconds: Number


class _Folds(TypedDict):
    count: int
    parts: list[_Fold]
    mean: Number
    std: Number
    estimate: str
    model: str


class _Tried(TypedDict):
    name: str
    title: str
    kind: str
    steps: int
    seconds: float
    validation: Number
    reason: str


class _Auto(TypedDict):
    budget: str
    chosen: str
    best: str
    why: str
    tried: list[_Tried]


class _Settings(TypedDict):
    method: str


class ResultKind(TypedDict, total=False):
    """`result.json`. What a candidate of `auto` lacks is optional here; `record_of` asks for the rest."""

    config: _Settings
    weights: str
    classes: list[str]
    score: Literal["top1", "mean_auc"]
    images: dict[str, int]
    left_out: int
    method: dict[str, Any]
    selected: _Selected
    stopped_early: int
    probe: _Probe
    validation: _Metrics
    test: _Metrics | None
    cost: _Cost
    environment: dict[str, Any]
    folds: _Folds
    auto: _Auto


class RecordKind(TypedDict):
    """A line of `records.jsonl`, without the fields that may be missing."""

    run: str
    variant: str
    data: str
    backbone: str
    rate: float
    data_seed: int
    seed: int
    score: Literal["top1", "mean_auc"]
    classes: int
    images: dict[str, int]
    validation: _Metrics
    test: _Metrics | None
    step: int
    cost: _Cost
    settings: _Settings
    environment: dict[str, Any]


class FailureKind(TypedDict):
    """`failure.json`."""

    reason: str


def is_validation(record: Any) -> bool:
    """Return whether a value is a line of `metrics.jsonl`: names with numbers, among them step, loss and score."""
    if not isinstance(record, dict):
        return False
    numbers = {name: value for name, value in record.items() if name != "score"}
    score = f"val_{record.get('score')}"
    return (
        all(value is None or (isinstance(value, (int, float)) and value is not True) for value in numbers.values())
        and isinstance(record.get("step"), int)
        and isinstance(record.get("train_loss"), (int, float))
        and {"val_loss", score} <= record.keys()  # None without validation images
    )
