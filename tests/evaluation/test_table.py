"""Tables of metrics."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from stochnorm.evaluation.table import COLUMNS, metrics_table, warning_of
from stochnorm.evaluation.tasks import MultiLabel, SingleLabel, Task


def shown(splits: dict[str, dict[str, object]]) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=120)
    console.print(metrics_table(splits))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines if line.strip(" ─")]


@pytest.mark.parametrize(
    ("task", "targets", "titles"),
    [
        (SingleLabel(("a", "b")), torch.tensor([0, 1]), ["top-1 %", "95 % interval", "per class %", "F1 %"]),
        (MultiLabel(("a", "b")), torch.tensor([[1, 0], [0, 1]]), ["mean AUC %", "95 % interval", "AP %"]),
    ],
    ids=["single", "multi"],
)
def test_each_kind_of_labels_shows_its_metrics(task: Task, targets: torch.Tensor, titles: list[str]) -> None:
    metrics = task.metrics(torch.eye(2), targets)
    head, row = shown({"test": metrics})
    assert head == ["split", "images", *titles, "ECE %", "loss"]
    assert row[:3] == ["test", "2", "100.0"]
    assert row[-1] == f"{metrics['loss']:.3f}"
    if isinstance(task, MultiLabel):
        assert row[3] == "-"  # two images are too few for an interval


def test_a_model_no_better_than_the_largest_class_gets_a_warning() -> None:
    assert not warning_of({"top1": 92.7, "majority": 92.6})
    assert not warning_of({"mean_auc": 50.0})
    assert not warning_of({"top1": 50.0})  # of an earlier version
    assert "is what always answering with the largest class reaches" in warning_of({"top1": 92.6, "majority": 92.6})
    assert "top-1 40.0 % is below the 50.0 %" in warning_of({"top1": 40.0, "majority": 50.0})


def test_every_column_is_a_metric() -> None:
    keys = {
        *SingleLabel(("a", "b")).metrics(torch.eye(2), torch.tensor([0, 1])),
        *MultiLabel(("a", "b"), resamples=0).metrics(torch.eye(2), torch.eye(2)),
    }
    assert {column.key for column in COLUMNS} <= keys


def test_eighty_columns_hold_all_metrics_of_one_label() -> None:
    metrics = SingleLabel(("a", "b")).metrics(torch.eye(2), torch.tensor([0, 1]))
    metrics |= {"images": 12345, "top1_interval": [10.0, 100.0]}
    console = Console(file=io.StringIO(), width=80)
    console.print(metrics_table({"validation": metrics, "test": metrics}))
    assert "…" not in console.file.getvalue()  # type: ignore[attr-defined]
