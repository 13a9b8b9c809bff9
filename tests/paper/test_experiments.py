"""The grids of the paper's tables and figures."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stochnorm.cli.main import main, parse
from stochnorm.comparison.grid import GridRun
from stochnorm.models.backbones import find_backbone
from stochnorm.paper import NAMES, published
from stochnorm.paper.catalogue import EXPERIMENTS
from stochnorm.paper.published import read_published
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.names import run_name


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("table2", 3 * 5 * 5),
        ("table3", 3 * 4 * 5 * 5),
        ("table4", 3 * 4 * 6 * 5),
        ("figure3", 2 * 4 * 2 * 5),
        ("figure4a", 3 * 4 * 5),
        ("figure4b", 3 * 3 * 5),
        ("figure4c", 3 * 5 * 5),
        ("figure4d", 3 * 3 * 5),
    ],
)
def test_every_cell_is_run_five_times(runs: Callable[..., list[GridRun]], name: str, count: int) -> None:
    names = [run_name(run.config) for run in runs(name)]
    assert len(names) == len(set(names)) == count == EXPERIMENTS[name].runs


def test_every_published_cell_is_in_a_grid_and_every_cell_of_a_table_is_published(
    runs: Callable[..., list[GridRun]],
) -> None:
    tables = ("table2", "table3", "table4")
    cells = {(n, Path(run.config.data).name, run.variant, run.config.rate) for n in tables for run in runs(n)}
    assert cells == set(read_published())
    assert len(cells) == 15 + 60 + 72


def test_the_published_numbers_are_those_of_the_paper(shared: Path) -> None:
    ours = Path(published.__file__).with_name("published.csv")
    assert ours.read_text() == (shared / "paper/tables.csv").read_text()


def test_the_settings_of_a_run_are_the_papers(runs: Callable[..., list[GridRun]]) -> None:
    run = next(run for run in runs("table3") if run.variant == "delta")
    config = run.config
    assert config == replace(
        FinetuneConfig("/data/cub"),
        method="delta",
        rate=15.0,
        backbone="resnet50.tv_in1k",
        weights="pretrained",
        image_size=0,
        steps=9050,
        batch_size=48,
        lr=0.001,
        head_lr_factor=10.0,
        momentum=0.9,
        weight_decay=None,
        decay_norm_bias=True,
        decay_at=config.decay_at,
        select="last",
        ten_crop=True,
        precision="32",
        val_fraction=0.2,
        pool_val=True,
        delta=replace(config.delta, alpha=0.01, beta=0.01, attention="channel", attention_images=320),
        data_seed=config.data_seed,
        seed=config.seed,
        workers=4,
    )
    assert config.delta.layers == ("layer1.2.conv3", "layer2.3.conv3", "layer3.5.conv3", "layer4.2.conv3")
    decayed = [step for step in range(config.steps) if step >= config.decay_at * config.steps]  # as in train.fit
    assert decayed[0] == 6000
    assert find_backbone(config.backbone).preprocessing(224).interpolation == "bilinear"


def test_strengths_are_the_published_ones(runs: Callable[..., list[GridRun]]) -> None:
    configs = {run.variant: run.config for name in ("table3", "table4") for run in runs(name)}
    assert configs["stochnorm"].p == configs["bss+stochnorm"].p == 0.5
    assert (configs["l2sp"].l2sp.alpha, configs["l2sp"].l2sp.beta) == (0.1, 0.01)
    assert (configs["bss"].bss.eta, configs["bss"].bss.k) == (0.001, 1)


def test_repetitions_of_a_cell_see_the_same_images_and_methods_the_same_repetitions(
    runs: Callable[..., list[GridRun]],
) -> None:
    seeds: dict[str, list[tuple[int, int]]] = {}
    for run in runs("table3"):
        if (run.config.data, run.config.rate) == ("/data/cub", 15):
            seeds.setdefault(run.variant, []).append((run.config.data_seed, run.config.seed))
    first = seeds["vanilla"]
    assert all(each == first for each in seeds.values())
    assert len({data for data, _ in first}) == 1
    assert len({training for _, training in first}) == 5


@pytest.mark.parametrize(
    ("name", "shared"),
    [("table4", 180), ("figure4a", 30), ("figure4b", 30), ("figure4c", 30), ("figure4d", 30), ("figure3", 0)],
)
def test_runs_that_table_3_has_are_not_made_again(runs: Callable[..., list[GridRun]], name: str, shared: int) -> None:
    table3 = {run_name(run.config) for run in runs("table3")}
    assert len(table3 & {run_name(run.config) for run in runs(name)}) == shared


def test_ablations_change_what_they_say(runs: Callable[..., list[GridRun]]) -> None:
    configs = {
        run.variant: run.config for name in ("figure4a", "figure4b", "figure4c", "figure4d") for run in runs(name)
    }
    assert configs["(0, 1)"].statistics == "zero_one"
    assert configs["target"].statistics == "target"
    assert configs["alpha = 0.001"].norm_momentum == 0.001
    assert [configs[f"p = {p}"].p for p in (0, 0.25, 0.5, 0.75)] == [0, 0.25, 0.5, 0.75]
    assert [configs[name].method for name in ("BN", "p = 1", "BIN", "StochNorm")] == [
        "vanilla",
        "vanilla",
        "bin",
        "stochnorm",
    ]


def test_the_command_knows_every_experiment_and_every_notebook_has_its_header() -> None:
    files = {path.stem for path in Path(published.__file__).parent.glob("*.py")}
    assert {name for name in files if re.fullmatch(r"(table|figure)\d\w?", name)} == set(EXPERIMENTS)
    assert tuple(EXPERIMENTS) == tuple(experiment.name for experiment in EXPERIMENTS.values()) == NAMES
    assert [parse(["paper", name]).name for name in (*EXPERIMENTS, "all")] == [*EXPERIMENTS, "all"]
    with pytest.raises(SystemExit):
        parse(["paper", "table1"])
    for name, experiment in EXPERIMENTS.items():
        header = importlib.import_module(f"stochnorm.paper.{name}").__doc__ or ""
        for text in (
            f"stochnorm paper {name} ",
            "Hardware:",
            f"{experiment.runs} runs",
            "never run",
            "Expected numbers:",
        ):
            assert text in header, (name, text)
        assert f"{experiment.hours} hours" in header


def test_the_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "experiments"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in EXPERIMENTS)
    assert str(EXPERIMENTS["table3"].runs) in printed
