"""The output on a terminal of 80 columns, and lines to copy from it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stochnorm.runs.directory import Run
from stochnorm.training.display import Display


@pytest.fixture
def display() -> Display:
    display = Display()
    display.console = Console(file=io.StringIO(), width=80)
    return display


def lines(display: Display) -> list[str]:
    file = display.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("metrics", [
    {"top1": 100.0, "top1_interval": [100.0, 100.0], "mean_per_class": 100.0},
    {"mean_auc": 100.0, "mean_auc_interval": [100.0, 100.0], "average_precision": 100.0},
], ids=["one label", "several"])  # fmt: skip
def test_the_result_has_whole_titles_and_values(display: Display, metrics: dict[str, Any]) -> None:
    metrics = metrics | {"images": 25596, "loss": 12.345, "ece": 100.0}
    record = {
        "config": {"method": "stochnorm"},
        "validation": metrics,
        "test": metrics,
        "cost": {"seconds": 60.0, "images_per_second": 30.0},
        "selected": {"step": 1, "by": "validation"},
    }
    display.result(record, Run(Path("run")))
    _, titles, _, validation, test, *_ = lines(display)
    assert max(map(len, lines(display))) <= 80
    assert titles.split()[0] == "split"
    assert validation.split() == ["validation", "25596", *test.split()[2:]]
    assert not any("…" in line for line in lines(display))


def test_a_validation_with_two_penalties_is_a_line(display: Display) -> None:
    record = {
        "step": 3000, "epoch": 100.1, "score": "top1", "train_loss": 12.345, "train_top1": 100.0,
        "penalty_l2sp": 123.456, "penalty_bss": 0.1, "val_loss": 12.345, "val_top1": 100.0, "images_per_second": 12345,
    }  # fmt: skip
    with display.training(3000, 10, 0) as bars:
        bars.validated(record)
    titles, values = lines(display)[:2]
    assert len(titles) == len(values) <= 80
    assert len(titles.split()) == 1 + 1 + 2 + 1 + 2 + 2 + 2 + 1
    assert titles.split()[5:7] == ["l2sp", "bss"]
    assert len(values.split()) == 9


def test_there_is_no_column_for_a_training_score_that_there_is_not(display: Display) -> None:
    record = {
        "step": 1, "epoch": 0.1, "score": "mean_auc", "train_loss": 1.0, "val_loss": 1.0, "val_mean_auc": None,
        "images_per_second": 1.0,
    }  # fmt: skip
    with display.training(10, 10, 0) as bars:
        bars.validated(record)
    assert lines(display)[0].split() == ["step", "epoch", "train", "loss", "val", "loss", "val", "AUC", "img/s"]
    assert lines(display)[1].split().count("-") == 1


def test_a_note_is_not_broken_so_that_it_can_be_copied(display: Display) -> None:
    command = "next: stochnorm finetune " + "x" * 100 + " --settings " + "y" * 100
    display.note(command)
    assert lines(display) == [command]
