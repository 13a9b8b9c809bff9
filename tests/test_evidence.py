"""The scripts in results/ choose on validation and run on the images of the runs that they are compared with."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stochnorm import FinetuneConfig, Grid
from stochnorm.runs.directory import Run
from stochnorm.runs.records import Record

RESULTS = Path(__file__).parents[1] / "results"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RESULTS))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return import_module(name)

    return load


def record(validation: float, loss: float, test: float) -> Record:
    found = {"top1": validation, "loss": loss}
    return Record("runs/a", "a", "photos", "resnet18", 100.0, 0, 0, "top1", 2, {}, found, {"top1": test}, 1, {}, {}, {})


def test_the_learning_rate_is_chosen_on_validation_then_by_its_loss(script: Any) -> None:
    trials = {0.001: record(80, 0.9, 10), 0.003: record(80, 0.7, 20), 0.01: record(70, 0.1, 99)}
    assert script("evidence").best_rate(trials) == 0.003
    assert script("evidence").best_rate(trials | {0.01: record(81, 5.0, 1)}) == 0.01


def test_every_row_is_a_run_that_can_be_configured_and_a_group_is_its_rows(script: Any) -> None:
    evidence = script("evidence")
    groups = [name for name in evidence.ROWS if name not in evidence.FIXED]
    rows = evidence.variants([*groups, "vanilla"])
    assert len(rows) == sum(len(evidence.ROWS[name]) for name in groups)  # vanilla is in one of them
    runs = [run.config for run in Grid(FinetuneConfig("photos/"), rows).runs()]
    held = [run for run in runs if run.norm_momentum == 0]
    assert [(run.method, run.p, run.head) for run in held] == [
        ("stochnorm", 0.1, "random"),
        ("stochnorm", 0.1, "probe"),
    ]
    rate = evidence.at_rate(rows[0], 0.01)
    assert (rate.label, rate.settings["lr"]) == (f"{rows[0].label}:lr=0.01", 0.01)


def test_a_peer_refuses_a_run_whose_split_is_another_now(script: Any, photos: Path, tmp_path: Path) -> None:
    from stochnorm.data import read_source
    from stochnorm.training.images import split_rows

    config = FinetuneConfig(photos)
    rows = split_rows(read_source(photos), config)
    lines = ["path,label,split", *(f"{row.path},{row.label},{row.split}" for row in rows)]
    (tmp_path / "split.csv").write_text("\n".join(lines) + "\n")
    script("peers").check_split(config, Run(tmp_path))
    with pytest.raises(ValueError, match="images are split otherwise"):
        script("peers").check_split(replace(config, data_seed=1), Run(tmp_path))
