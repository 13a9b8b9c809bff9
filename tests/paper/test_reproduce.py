"""The paper's tables and figures anew: the grids, what they are compared with, and every cell once at small scale."""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from rich.console import Console

from stochnorm import cli
from stochnorm.cli.main import main
from stochnorm.comparison.compare import Comparison
from stochnorm.comparison.grid import Grid, GridRun
from stochnorm.data import read_source
from stochnorm.models.backbones import find_backbone
from stochnorm.paper import EXPERIMENTS, Experiment, published
from stochnorm.paper import reproduce as paper
from stochnorm.paper.figures import draw
from stochnorm.paper.outcome import Outcome, Place, format_csv, format_markdown, lines_of, show
from stochnorm.paper.published import read_published
from stochnorm.paper.reproduce import find_data, grids, reproduce, write_outcome
from stochnorm.paper.small import NOTE, small_set
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import run_name
from stochnorm.runs.records import Failure, Record, read_records

DATA = {name: f"/data/{name}" for name in ("cub", "cars", "aircraft", "chestxray14")}
FIGURES = [experiment for experiment in EXPERIMENTS.values() if experiment.figure]


def runs(name: str, **options: Any) -> list[GridRun]:
    return [run for grid in grids(EXPERIMENTS[name], DATA, **options) for run in grid.runs()]


def record(run: GridRun, value: float | None, scale: str = "") -> Record:
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


def outcome(name: str, value_of: Callable[[GridRun], float | None], scale: paper.Scale = "paper") -> Outcome:
    """Of fabricated runs."""
    experiment = EXPERIMENTS[name]
    records = [record(run, value_of(run)) for run in runs(name)]
    places = {(DATA[d], b): Place(d, b) for d in experiment.data for b in experiment.backbones}
    return Outcome(experiment, lines_of(experiment, records, places), scale)


# The grids.


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
def test_every_cell_is_run_five_times(name: str, count: int) -> None:
    names = [run_name(run.config) for run in runs(name)]
    assert len(names) == len(set(names)) == count == EXPERIMENTS[name].runs


def test_every_published_cell_is_in_a_grid_and_every_cell_of_a_table_is_published() -> None:
    tables = ("table2", "table3", "table4")
    cells = {(n, Path(run.config.data).name, run.variant, run.config.rate) for n in tables for run in runs(n)}
    assert cells == set(read_published())
    assert len(cells) == 15 + 60 + 72


def test_the_published_numbers_are_those_of_the_paper(shared: Path) -> None:
    ours = Path(published.__file__).with_name("published.csv")
    assert ours.read_text() == (shared / "paper/tables.csv").read_text()


def test_the_settings_of_a_run_are_the_papers() -> None:
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


def test_strengths_are_the_published_ones() -> None:
    configs = {run.variant: run.config for name in ("table3", "table4") for run in runs(name)}
    assert configs["stochnorm"].p == configs["bss+stochnorm"].p == 0.5
    assert (configs["l2sp"].l2sp.alpha, configs["l2sp"].l2sp.beta) == (0.1, 0.01)
    assert (configs["bss"].bss.eta, configs["bss"].bss.k) == (0.001, 1)


def test_repetitions_of_a_cell_see_the_same_images_and_methods_the_same_repetitions() -> None:
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
def test_runs_that_table_3_has_are_not_made_again(name: str, shared: int) -> None:
    table3 = {run_name(run.config) for run in runs("table3")}
    assert len(table3 & {run_name(run.config) for run in runs(name)}) == shared


def test_ablations_change_what_they_say() -> None:
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
    hints = get_type_hints(cli.Paper)
    assert get_args(hints["name"]) == (*EXPERIMENTS, "all")
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


# Ours beside the paper's.


def few(run: GridRun) -> float | None:
    """Two repetitions of two methods at 15 % of CUB; one of them once more, without a test score."""
    config = run.config
    if config.data != "/data/cub" or config.rate != 15 or run.repeat > 2:
        return None
    return {"vanilla": [44.0, 46.0, None], "stochnorm": [50.0, None, None]}.get(run.variant, [None] * 3)[run.repeat]


def test_a_table_has_ours_the_papers_and_the_difference() -> None:
    text = format_markdown(outcome("table3", few))
    assert text.startswith("# Table 3: top-1 accuracy of StochNorm and other methods, ResNet-50\n")
    assert NOTE not in text
    block = text.partition("## CUB-200-2011\n\n")[2].partition("\n\n")[0].splitlines()
    assert block[:7] == [
        "| rate | variant | ours, top-1 % | paper | difference |",
        "|---:|---|---:|---:|---:|",
        "| 15 % | vanilla | 45.00 ± 1.41 (2) | 45.25 ± 0.12 | -0.25 |",
        "| 15 % | l2sp | - | 45.08 ± 0.19 | - |",
        "| 15 % | delta | - | 46.83 ± 0.21 | - |",
        "| 15 % | bss | - | 47.74 ± 0.23 | - |",
        "| 15 % | stochnorm | 50.00 (1) | 50.14 ± 0.19 | -0.14 |",
    ]
    assert len(block) == 2 + 20
    assert text.count("\n## ") == 3


def test_numbers_are_in_the_csv_file_with_all_decimals() -> None:
    rows = list(csv.DictReader(format_csv(outcome("table3", few)).splitlines()))
    assert len(rows) == 60
    assert rows[0] == {
        "experiment": "table3",
        "scale": "paper",
        "data": "cub",
        "backbone": "resnet50.tv_in1k",
        "rate": "15.0",
        "variant": "vanilla",
        "n": "2",
        "mean": "45.0",
        "std": "1.4142135623730951",
        "paper_mean": "45.25",
        "paper_std": "0.12",
        "difference": "-0.25",
        "gain": "",
        "gain_std": "",
    }
    assert (rows[1]["n"], rows[1]["mean"], rows[1]["difference"]) == ("0", "", "")


def test_table_4_has_no_deviations_of_the_paper() -> None:
    assert "| 100 % | bss+stochnorm | - | 87.85 | - |" in format_markdown(outcome("table4", few))


def test_a_figure_has_dashes_for_the_papers_numbers_and_paired_gains() -> None:
    text = format_markdown(outcome("figure4d", lambda run: 40.0 + 10 * run.repeat + (run.variant == "BIN")))
    assert "| rate | variant | ours, top-1 % | above BN | paper | difference |" in text
    assert "| 15 % | BIN | 61.00 ± 15.81 (5) | +1.00 ± 0.00 | - | - |" in text
    assert "| 15 % | BN | 60.00 ± 15.81 (5) | - | - | - |" in text


def test_the_small_scale_is_labelled_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    result = outcome("figure4c", lambda run: 30.0, scale="small")
    show(Console(width=80), result)
    printed = capsys.readouterr().out
    assert "no result" in printed
    assert "Small scale" in printed
    assert format_markdown(result).startswith(f"# Figure 4(c): impact of p ({NOTE})\n\n- Small scale: no result.")
    assert all(row["scale"] == "small" for row in csv.DictReader(format_csv(result).splitlines()))
    assert [axes.get_title("right") for axes in draw(result).axes] == [f" ({NOTE})"]


def test_the_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    for name in EXPERIMENTS:
        show(Console(width=80), outcome(name, lambda run: 50.0 + run.repeat))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert "50.14 ± 0.19" in printed
    assert "NIH ChestX-ray14" in printed


# Figures.


def bars(figure: Figure) -> dict[str, list[float]]:
    (axes,) = figure.axes
    found = [container for container in axes.containers if isinstance(container, BarContainer)]
    return {str(each.get_label()): [bar.get_height() for bar in each.patches] for each in found}


def ticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_figure_4a_and_4c_are_accuracies_a_group_a_data_set() -> None:
    places = ["/data/cub", "/data/cars", "/data/aircraft"]
    figure = draw(outcome("figure4a", lambda run: 40.0 + places.index(run.config.data)))
    assert ticks(figure) == ["CUB-200-2011", "Stanford Cars", "FGVC-Aircraft 2013b"]
    assert bars(figure) == {name: [40, 41, 42] for name in ("BN", "(0, 1)", "target", "pre-trained")}
    assert figure.axes[0].get_ylabel() == "top-1, %"
    assert set(bars(draw(outcome("figure4c", lambda run: 1.0)))) == {
        "p = 0",
        "p = 0.25",
        "p = 0.5",
        "p = 0.75",
        "p = 1",
    }


def test_figure_4b_and_4d_are_improvements() -> None:
    scores = {"vanilla": 40.0, "BN": 40.0, "alpha = 0.001": 42.0, "alpha = 0.1": 44.0, "BIN": 41.0, "StochNorm": 39.0}
    figure = draw(outcome("figure4b", lambda run: scores[run.variant]))
    assert bars(figure) == {"alpha = 0.001": [2] * 3, "alpha = 0.1": [4] * 3}
    assert figure.axes[0].get_ylabel() == "top-1 above vanilla, points"
    assert bars(draw(outcome("figure4d", lambda run: scores[run.variant]))) == {"BIN": [1] * 3, "StochNorm": [-1] * 3}


def test_figure_3_is_the_improvement_over_the_rate_a_bar_a_backbone() -> None:
    def value(run: GridRun) -> float:
        return 40.0 + (run.variant == "stochnorm") * (run.config.rate if "vgg" in run.config.backbone else 1)

    figure = draw(outcome("figure3", value))
    assert ticks(figure) == ["15 %", "30 %", "50 %", "100 %"]
    assert figure.axes[0].get_xlabel() == "CUB-200-2011, share of the training images"
    assert bars(figure) == {"VGG-16": [15, 30, 50, 100], "Inception-v3": [1, 1, 1, 1]}


def test_a_missing_bar_is_a_dash() -> None:
    figure = draw(outcome("figure4d", lambda run: None if run.variant == "BIN" else 50.0))
    assert [text.get_text() for text in figure.axes[0].texts] == ["-"] * 3 + ["0.0"] * 3


@pytest.mark.parametrize("experiment", FIGURES, ids=lambda experiment: experiment.name)
def test_a_figure_is_written_twice_beside_its_table(experiment: Experiment, tmp_path: Path) -> None:
    files = write_outcome(outcome(experiment.name, lambda run: 50.0 + run.repeat), [], tmp_path)
    assert [file.name.removeprefix(experiment.name) for file in files] == [
        ".md",
        ".csv",
        "records.jsonl",
        ".png",
        ".svg",
    ]
    assert all(file.parent == tmp_path / experiment.name for file in files)
    assert (tmp_path / experiment.name / f"{experiment.name}.svg").read_text().startswith("<?xml")


# Data and options.


def test_data_sets_are_found_by_their_files(tmp_path: Path, write_official: Callable[[str, Path], Path]) -> None:
    write_official("cub", tmp_path / "birds")
    write_official("chestxray14", tmp_path / "x")
    assert find_data(tmp_path, ["cub", "cars"]) == {"cub": tmp_path / "birds"}
    assert find_data(tmp_path / "x", ["chestxray14"]) == {"chestxray14": tmp_path / "x"}


def test_no_data_set_at_all_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    (tmp_path / "holidays").mkdir()
    for arguments, texts in (
        (
            (tmp_path, ["cub", "cars"]),
            ["holidays", "CUB-200-2011: images.txt", "Stanford Cars: devkit", "download cub"],
        ),
        ((tmp_path / "none", ["chestxray14"]), ["no folder", "Data_Entry_2017.csv", "Box"]),
    ):
        with pytest.raises(FileNotFoundError) as error:
            find_data(*arguments)
        for text in texts:
            assert text in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give --data-root FOLDER"),
        ({"scale": "small", "weights": "resnet50.pth"}, "leave out --weights"),
        ({"data_root": "nowhere"}, "nowhere: holds none of the data sets wanted"),
    ],
)
def test_options_that_cannot_work_are_said_first(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        reproduce("table3", out=str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_weights_gives_each_backbone_its_file(tmp_path: Path) -> None:
    for name in ("resnet50-0676ba61.pth", "vgg16_bn-6c64b313.pth"):
        (tmp_path / name).touch()
    assert {run.config.weights for run in runs("table3", weights=str(tmp_path))} == {
        str(tmp_path / "resnet50-0676ba61.pth")
    }
    with pytest.raises(FileNotFoundError, match=r"no file inception_v3\*.pth"):
        runs("figure3", weights=str(tmp_path))
    (tmp_path / "inception_v3_google-0cc3c7bd.pth").touch()
    assert len({run.config.weights for run in runs("figure3", weights=str(tmp_path))}) == 2
    with pytest.raises(ValueError, match=r"a file of each: vgg16_bn\*.pth, inception_v3\*.pth"):
        reproduce("figure3", data_root=str(tmp_path), weights=str(tmp_path / "vgg16_bn-6c64b313.pth"))


@pytest.fixture
def fabricated(monkeypatch: pytest.MonkeyPatch) -> list[Grid]:
    """In place of training: runs that end at once, but those of DELTA fail. Gives the grids that were asked for."""
    asked: list[Grid] = []

    def compare(grid: Grid, out: Path, **options: Any) -> Comparison:
        asked.append(grid)
        done = [record(run, 50.0 + run.repeat) for run in grid.runs() if run.variant != "delta"]
        failed = [
            Failure(run.variant, "cub", "", run.config.rate, run.repeat, "", "it diverged")
            for run in grid.runs()
            if run.variant == "delta"
        ]
        return Comparison(out, done, failed)

    monkeypatch.setattr(paper, "compare", compare)
    return asked


def test_missing_data_sets_are_dashes_with_a_warning(
    tmp_path: Path, write_official: Callable[[str, Path], Path], fabricated: list[Grid]
) -> None:
    root = write_official("cub", tmp_path / "data/CUB_200_2011").parent
    with pytest.warns(UserWarning, match="is not in") as warned:
        result = reproduce("figure4d", data_root=str(root), out=str(tmp_path / "out"), quiet=True)
    assert len(warned) == 2
    assert [grid.data for grid in fabricated] == [(str(root / "CUB_200_2011"),)]
    assert [line.n for line in result.lines] == [5, 5, 5, 0, 0, 0, 0, 0, 0]
    text = (tmp_path / "out/figure4d/figure4d.md").read_text()
    assert f"Stanford Cars is not in {root}: dashes." in text
    assert "CUB-200-2011 in" in text
    assert "not the official set" in text


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_failed_runs_are_dashes_and_said_last(
    tmp_path: Path, write_official: Callable[[str, Path], Path], fabricated: list[Grid]
) -> None:
    root = write_official("cub", tmp_path / "data/CUB_200_2011").parent
    with pytest.raises(ValueError, match="20 of 100 runs failed: it diverged"):
        reproduce("table3", data_root=str(root), out=str(tmp_path / "out"), quiet=True)
    text = (tmp_path / "out/table3/table3.md").read_text()
    assert "| 15 % | delta | - | 46.83 ± 0.21 | - |" in text
    assert "Failed: delta, cub, 15 %, repeat 1 and 19 more: it diverged" in text


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_all_of_them_go_on_after_one_that_cannot(
    tmp_path: Path,
    write_official: Callable[[str, Path], Path],
    fabricated: list[Grid],
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = write_official("cub", tmp_path / "data/CUB_200_2011").parent
    assert main(["paper", "all", "--data-root", str(root), "--out", str(tmp_path / "out")]) == 1
    assert len(fabricated) == len(EXPERIMENTS)  # without table2, but figure3 has two
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"table2: {root}: holds none of the data sets wanted" in error
    assert "table3: 20 of 100 runs failed: it diverged" in error
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(EXPERIMENTS) - {"table2"}


# The small scale.


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize("name", ["cub", "aircraft", "chestxray14"])
def test_generated_sets_have_the_shape_of_the_official_ones(name: str, tmp_path: Path) -> None:
    path = small_set(name, tmp_path)
    source = read_source(path)
    assert source.multi_label == (name == "chestxray14")
    assert {row.split for row in source.rows} == {"train", "test"} | ({"val"} if name == "aircraft" else set())
    assert any(row.group for row in source.rows) == source.multi_label
    before = path.stat().st_mtime_ns
    assert small_set(name, tmp_path) == path
    assert path.stat().st_mtime_ns == before


@pytest.mark.filterwarnings("ignore:.*is not the official set")
@pytest.mark.parametrize(("name", "folder"), [("cub", "CUB_100"), ("chestxray14", "NIH_1000")])
def test_a_few_official_images_are_copied(name: str, folder: str, tmp_path: Path, shared: Path) -> None:
    path = small_set(name, tmp_path, str(shared / "data" / folder))
    source = read_source(path)
    assert path.name == f"{folder}-small.csv"
    assert 100 < len(source.rows) < 600
    assert {row.split for row in source.rows} == {"train", "test"}
    assert len(source.classes) == (8 if name == "cub" else 3)
    assert source.classes[0] == ("001.Black_footed_Albatross" if name == "cub" else source.classes[0])


def test_both_scales_in_one_directory_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"": "small"}')
    with pytest.raises(ValueError, match="holds runs of small scale; give another directory with --out"):
        reproduce("table3", data_root=str(tmp_path), out=str(tmp_path))


@pytest.fixture(scope="module")
def small_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all, in whichever process, so that what two want is made once."""
    root = tmp_path_factory.getbasetemp()
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "paper"


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_runs_at_the_smallest_size(name: str, small_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command: data, training, test, table, figure."""
    experiment = EXPERIMENTS[name]
    arguments = ["--scale", "small", "--repeats", "1", "--workers", "1", "--out", str(small_out)]
    assert main(["paper", name, *arguments]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "no result" in printed
    rows = rows_of(small_out / name / f"{name}.csv")
    assert len(rows) == experiment.runs / experiment.repeats
    assert all(row["n"] == "1" and row["mean"] and row["scale"] == "small" for row in rows)
    assert any(row["difference"] for row in rows) == (not experiment.figure)
    assert (small_out / name / f"{name}.md").read_text().startswith(f"# {experiment.title} ({NOTE})")
    records = read_records([small_out / name / "records.jsonl"])
    assert {each.scale for each in records} == {"small"}
    assert all((small_out / name / each.run / "result.json").is_file() for each in records)
    assert {suffix for suffix in (".png", ".svg") if (small_out / name / f"{name}{suffix}").is_file()} == (
        {".png", ".svg"} if experiment.figure else set()
    )


def test_the_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "experiments"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in EXPERIMENTS)
    assert str(EXPERIMENTS["table3"].runs) in printed
