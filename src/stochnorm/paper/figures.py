"""Draw the paper's figures from the lines of an experiment."""

from __future__ import annotations

import math
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from stochnorm.data import DATASETS
from stochnorm.paper.experiment import Experiment
from stochnorm.paper.outcome import BACKBONE_TITLES, Line, Outcome
from stochnorm.plotting import BLUE, GREY, ORANGE, tidy

__all__ = ["draw"]

_RED = "#b91c1c"
_WIDTH = 0.82  # of a group of bars, whose centers are 1 apart


def draw(outcome: Outcome) -> Figure:
    """Draw bars in the paper's layout.

    A group of bars is a data set and a bar is a variant; with several backbones, a group is a rate and a bar is a
    backbone. Whiskers are standard deviations. A missing bar is a dash.

    Args:
        outcome: The results of an experiment that is a figure.
    """
    experiment = outcome.experiment
    shown = [line for line in outcome.lines if experiment.figure == "score" or line.variant != _reference(experiment)]
    group, bar = _axes(experiment)
    groups, bars = (list(dict.fromkeys(map(key, shown))) for key in (group, bar))
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    width = _WIDTH / len(bars)
    for i, name in enumerate(bars):
        lines = [line for line in shown if bar(line) == name]
        color = _color(experiment, name, i, len(bars))
        positions = [groups.index(group(line)) + (i - (len(bars) - 1) / 2) * width for line in lines]
        _bars(axes, positions, [_value(experiment, line) for line in lines], width, color, name)
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel(_shared(experiment))
    axes.axhline(0, color="#374151", linewidth=0.8)
    axes.margins(x=0.03, y=0.12)
    tidy(axes)
    if experiment.figure == "gain":
        axes.spines["bottom"].set_visible(False)
        axes.set_ylabel(f"{outcome.score} above {_reference(experiment)}, points")
    else:
        axes.set_ylabel(f"{outcome.score}, %")
    axes.set_title(experiment.title, loc="left", fontsize=11, pad=24)
    axes.legend(
        frameon=False, fontsize=9, ncols=len(bars), loc="lower left", bbox_to_anchor=(-0.01, 0.99), handlelength=1
    )
    if outcome.scale == "small":
        axes.set_title(outcome.heading.removeprefix(experiment.title), loc="right", fontsize=11, pad=24, color=_RED)
    return figure


def _bars(
    axes: Axes,
    positions: list[float],
    values: list[tuple[float | None, float | None]],
    width: float,
    color: tuple[float, ...],
    name: str,
) -> None:
    heights = [math.nan if mean is None else mean for mean, _ in values]
    deviations = [std or 0.0 for _, std in values]
    axes.bar(positions, heights, width * 0.92, color=color, label=name)
    for x, height, deviation in zip(positions, heights, deviations, strict=True):
        if math.isnan(height):
            axes.annotate("-", (x, 0), (0, 2), textcoords="offset points", ha="center", color=GREY)
            continue
        if deviation:
            axes.errorbar(x, height, deviation, color="#374151", linewidth=0.9, capsize=2)
        up = height >= 0
        axes.annotate(
            f"{height:.1f}",
            (x, height + (deviation if up else -deviation)),
            (0, 2 if up else -2),
            textcoords="offset points",
            ha="center",
            va="bottom" if up else "top",
            fontsize=7.5,
            color="#374151",
        )


def _reference(experiment: Experiment) -> str:
    return experiment.variants[0].label


def _axes(experiment: Experiment) -> tuple[Callable[[Line], str], Callable[[Line], str]]:
    """Return the functions that name the group and the bar of a line."""
    if len(experiment.backbones) > 1:
        return lambda line: f"{line.rate:g} %", lambda line: BACKBONE_TITLES[line.backbone]
    return lambda line: DATASETS[line.data].title, lambda line: line.variant


def _shared(experiment: Experiment) -> str:
    """Return the label of what all groups share."""
    if len(experiment.backbones) > 1:
        return f"{DATASETS[experiment.data[0]].title}, fraction of the training images"
    return f"with {experiment.rates[0]:g} % of the training images"


def _value(experiment: Experiment, line: Line) -> tuple[float | None, float | None]:
    return (line.gain, line.gain_std) if experiment.figure == "gain" else (line.mean, line.std)


def _color(experiment: Experiment, name: str, number: int, count: int) -> tuple[float, ...]:
    """Return orange for the paper's own variant, grey for plain fine-tuning, else blue, darker for later bars."""
    if name == experiment.highlight:
        return to_rgb(ORANGE)
    if name == _reference(experiment) and experiment.variants[0].settings == {"method": "vanilla"}:
        return to_rgb(GREY)
    share = 0.45 + 0.55 * number / max(count - 1, 1)
    return tuple(1 - share + share * part for part in to_rgb(BLUE))
