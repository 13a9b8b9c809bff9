"""Made-up runs of the paper's experiments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stochnorm.comparison.grid import GridRun
from stochnorm.paper import reproduce as paper
from stochnorm.paper.catalogue import EXPERIMENTS
from stochnorm.paper.outcome import Outcome, Place, lines_of
from stochnorm.paper.reproduce import grids
from stochnorm.runs.names import run_name
from stochnorm.runs.records import Record

DATA = {name: f"/data/{name}" for name in ("cub", "cars", "aircraft", "chestxray14")}


def _runs(name: str, **options: Any) -> list[GridRun]:
    return [run for grid in grids(EXPERIMENTS[name], DATA, **options) for run in grid.runs()]


def _record(run: GridRun, value: float | None, scale: str = "") -> Record:
    config = run.config
    return Record(
        run=f"runs/{run_name(config)}",
        variant=run.variant,
        data=Path(config.data).stem,
        backbone=config.backbone,
        rate=config.rate,
        data_seed=config.data_seed,
        seed=config.seed,
        score="top1",
        classes=200,
        images={},
        validation={},
        test=None if value is None else {"top1": value},
        step=9050,
        cost={},
        settings=config.result_fields(),
        environment={},
        scale=scale,
    )


def _outcome(name: str, value_of: Callable[[GridRun], float | None], scale: paper.Scale = "paper") -> Outcome:
    """Return the outcome of made-up runs."""
    experiment = EXPERIMENTS[name]
    records = [_record(run, value_of(run)) for run in _runs(name)]
    places = {(DATA[d], b): Place(d, b) for d in experiment.data for b in experiment.backbones}
    return Outcome(experiment, lines_of(experiment, records, places), scale)


@pytest.fixture
def runs() -> Callable[..., list[GridRun]]:
    """Return the function that lists the runs of an experiment."""
    return _runs


@pytest.fixture
def record() -> Callable[..., Record]:
    """Return the function that makes up the record of a run."""
    return _record


@pytest.fixture
def outcome() -> Callable[..., Outcome]:
    """Return the function that makes up the outcome of an experiment."""
    return _outcome
