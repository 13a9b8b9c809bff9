"""Hours from speeds: pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stochnorm import FinetuneConfig
from stochnorm.comparison.grid import GridRun
from stochnorm.data import read_source
from stochnorm.paper import NAMES
from stochnorm.paper.catalogue import EXPERIMENTS
from stochnorm.paper.experiment import INCEPTION_V3, PAPER, RESNET50, VGG16_BN
from stochnorm.paper.hours import Speeds, Work, hours_of, runs_of, work_of
from stochnorm.paper.small import images_of, small_set
from stochnorm.runs.names import run_name

METHODS = ("vanilla", "l2sp", "delta", "bss", "stochnorm", "bin")
EQUAL = Speeds(
    {backbone: dict.fromkeys(METHODS, 1000.0) for backbone in (RESNET50, VGG16_BN, INCEPTION_V3)},
    dict.fromkeys((RESNET50, VGG16_BN, INCEPTION_V3), 5000.0),
)


@pytest.mark.parametrize("name", NAMES)
def test_runs_and_steps_are_those_of_the_experiment(name: str, runs: Callable[..., list[GridRun]]) -> None:
    (line,) = hours_of([name], EQUAL).lines
    assert (line.name, line.title) == (name, EXPERIMENTS[name].title)
    assert line.runs == EXPERIMENTS[name].runs == len(runs(name))
    assert line.steps == 9050 * line.runs
    assert hours_of([name], EQUAL, repeats=2).lines[0].runs == line.runs / 5 * 2


def test_hours_are_images_and_crops_over_their_speeds() -> None:
    """Figure 4(d): 15 % of CUB, Cars and Aircraft, three variants, five runs each."""
    test, val = 5794 + 8041 + 3333, 180 + 244 + 200  # val: a fifth of 900, 1222 and 1001 images
    crops = 10 * test + 16 * val  # 15 validations and one of the kept model
    expected = 3 * 5 * (3 * 9050 * 48 / 1000 + crops / 5000) / 3600
    assert hours_of(["figure4d"], EQUAL).total.hours == pytest.approx(expected, rel=1e-12)
    later = hours_of(["figure4d"], replace(EQUAL, start=7.0)).total.hours
    assert later == pytest.approx(expected + 45 * 7 / 3600, rel=1e-12)


def test_a_sum_of_methods_takes_what_each_adds() -> None:
    speeds = Speeds({"net": {"vanilla": 1000.0, "stochnorm": 800.0, "delta": 500.0, "bss": 1000.0}}, {"net": 1.0})
    seconds = [speeds.training_seconds("net", m) for m in ("vanilla", "delta", "stochnorm+bss", "stochnorm+delta")]
    assert seconds == pytest.approx([1e-3, 2e-3, 1.25e-3, 2.25e-3], rel=1e-12)


def test_a_run_that_several_experiments_need_is_counted_once(runs: Callable[..., list[GridRun]]) -> None:
    result = hours_of(NAMES, EQUAL)
    unique = {run_name(run.config) for name in NAMES for run in runs(name)}
    assert result.total.runs == len(unique) < sum(line.runs for line in result.lines)
    assert result.total.steps == 9050 * len(unique)
    assert result.total.hours < sum(line.hours for line in result.lines)


def test_workers_are_devices_that_are_not_idle() -> None:
    speeds = replace(EQUAL, devices=4)
    assert [hours_of(["figure4d"], speeds, workers=workers).devices for workers in (0, 1, 3, 9)] == [4, 1, 3, 4]


@pytest.mark.parametrize(
    ("changes", "images", "work"),
    [
        # 100 % of 1000, 200 of them for validation; an epoch is 16 steps, and 604 is a fifteenth of the steps
        ({}, {"train": 1000, "test": 50}, Work(9050 * 48, 16 * 200 + 500)),
        ({"ten_crop": False, "eval_every": 5000}, {"train": 1000, "test": 50}, Work(9050 * 48, 3 * 200 + 50)),
        ({"pool_val": False, "rate": 10.0}, {"train": 1000, "val": 30, "test": 0}, Work(9050 * 48, 16 * 30)),
        ({"rate": 10.0}, {"train": 960, "val": 40, "test": 0}, Work(9050 * 48, 16 * 20)),
        # an epoch is 5000 steps: two validations
        ({"rate": 100.0}, {"train": 300_000, "test": 0}, Work(9050 * 48, 3 * 60_000)),
    ],
)
def test_work_of_a_run(changes: dict[str, float], images: dict[str, int], work: Work) -> None:
    config = replace(PAPER, data="x", **changes)  # type: ignore[arg-type]
    assert work_of(config, images) == work


def test_validations_are_as_many_as_training_makes() -> None:
    config = FinetuneConfig("x", steps=1000, batch_size=8, val_fraction=0.5, rate=100.0)
    crops = work_of(config, {"train": 40, "test": 0}).crops  # an epoch is 2 steps
    every = config.eval_every_used(20)
    assert every == 67, "a fifteenth of the steps"
    assert crops == 20 * (-(-1000 // every) + 1)


def test_small_scale_has_the_images_that_are_generated(tmp_path: Path) -> None:
    for name in ("cub", "aircraft", "chestxray14"):
        score = next(e.score for e in EXPERIMENTS.values() if name in e.data)
        rows = read_source(small_set(name, score, tmp_path)).rows
        tests = sum(row.split == "test" for row in rows)
        assert images_of(name) == {"train": len(rows) - tests, "test": tests}
    assert {config.steps for config in runs_of("table3", "small")} == {2}
