"""The paper's figures, drawn from made-up runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from stochnorm.comparison.grid import GridRun
from stochnorm.paper.catalogue import EXPERIMENTS
from stochnorm.paper.experiment import Experiment
from stochnorm.paper.figures import draw
from stochnorm.paper.outcome import Outcome
from stochnorm.paper.reproduce import write_outcome

FIGURES = [experiment for experiment in EXPERIMENTS.values() if experiment.figure]


def bars(figure: Figure) -> dict[str, list[float]]:
    (axes,) = figure.axes
    found = [container for container in axes.containers if isinstance(container, BarContainer)]
    return {str(each.get_label()): [bar.get_height() for bar in each.patches] for each in found}


def ticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_figure_4a_and_4c_are_accuracies_a_group_a_data_set(outcome: Callable[..., Outcome]) -> None:
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


def test_figure_4b_and_4d_are_improvements(outcome: Callable[..., Outcome]) -> None:
    scores = {"vanilla": 40.0, "BN": 40.0, "alpha = 0.001": 42.0, "alpha = 0.1": 44.0, "BIN": 41.0, "StochNorm": 39.0}
    figure = draw(outcome("figure4b", lambda run: scores[run.variant]))
    assert bars(figure) == {"alpha = 0.001": [2] * 3, "alpha = 0.1": [4] * 3}
    assert figure.axes[0].get_ylabel() == "top-1 above vanilla, points"
    assert bars(draw(outcome("figure4d", lambda run: scores[run.variant]))) == {"BIN": [1] * 3, "StochNorm": [-1] * 3}


def test_figure_3_is_the_improvement_over_the_rate_a_bar_a_backbone(outcome: Callable[..., Outcome]) -> None:
    def value(run: GridRun) -> float:
        return 40.0 + (run.variant == "stochnorm") * (run.config.rate if "vgg" in run.config.backbone else 1)

    figure = draw(outcome("figure3", value))
    assert ticks(figure) == ["15 %", "30 %", "50 %", "100 %"]
    assert figure.axes[0].get_xlabel() == "CUB-200-2011, fraction of the training images"
    assert bars(figure) == {"VGG-16": [15, 30, 50, 100], "Inception-v3": [1, 1, 1, 1]}


def test_a_missing_bar_is_a_dash(outcome: Callable[..., Outcome]) -> None:
    figure = draw(outcome("figure4d", lambda run: None if run.variant == "BIN" else 50.0))
    assert [text.get_text() for text in figure.axes[0].texts] == ["-"] * 3 + ["0.0"] * 3


@pytest.mark.parametrize("experiment", FIGURES, ids=lambda experiment: experiment.name)
def test_a_figure_is_written_twice_beside_its_table(
    outcome: Callable[..., Outcome], experiment: Experiment, tmp_path: Path
) -> None:
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
