"""Figures, as PNG and SVG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from stochnorm.files import atomic_path

__all__ = ["plot_curves", "plot_search", "save_figure"]

BLUE, ORANGE, GREY = "#2563a8", "#d9731a", "#8a8f98"


def plot_curves(history: list[dict[str, Any]], selected: dict[str, Any], score_title: str, path: Path) -> None:
    """Loss and score over the steps, training and validation, the selected step marked; as PNG and SVG."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes_of = dict(zip(("loss", selected["score"]), figure.subplots(1, 2), strict=True))
    steps = [record["step"] for record in history]
    for (name, axes), label in zip(axes_of.items(), ("loss", f"{score_title}, %"), strict=True):
        if f"train_{name}" in selected:
            axes.plot(
                steps, [r[f"train_{name}"] for r in history], color=GREY, marker=".", label="training (augmented)"
            )
        values = [math.nan if r[f"val_{name}"] is None else r[f"val_{name}"] for r in history]
        axes.plot(steps, values, color=BLUE, marker=".", label="validation")
        chosen = values[history.index(selected)]
        axes.plot(selected["step"], chosen, "o", color=ORANGE, label=f"selected, step {selected['step']}")
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_title(label, loc="left", fontsize=10)
        tidy(axes)
    axes_of["loss"].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def plot_search(trials: list[tuple[dict[str, Any], float]], chosen: tuple[dict[str, Any], float], path: Path) -> None:
    """Validation score over each searched setting, a dot a trial, the chosen one marked; as PNG and SVG."""
    names = sorted({name for settings, _ in trials for name in settings})
    figure = Figure(figsize=(max(3.2 * len(names), 4.0), 3.0), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        points = [(settings[name], value) for settings, value in trials if name in settings]
        numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x, _ in points)
        shown: Any = (lambda x: x) if numbers else str
        axes.plot([shown(x) for x, _ in points], [y for _, y in points], "o", color=BLUE, alpha=0.6, label="trials")
        if name in chosen[0]:
            axes.plot(shown(chosen[0][name]), chosen[1], "o", color=ORANGE, markersize=9, label="chosen")
        if name != "p" and all(isinstance(x, float) and x > 0 for x, _ in points):
            axes.set_xscale("log")
            axes.set_xticks(_few_ticks(*axes.get_xlim()))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(name)
        tidy(axes)
    figure.axes[0].set_title("validation score of complete trials, %", loc="left", fontsize=10)
    figure.axes[0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def _few_ticks(low: float, high: float) -> list[float]:
    """Two to four round numbers for a logarithmic axis, whose labels do not reach each other."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 4:
            break
    if len(ticks) < 2:
        ticks = [tick for tick in MaxNLocator(3).tick_values(low, high) if low <= tick <= high]
    return ticks[:: math.ceil(len(ticks) / 4)]


def save_figure(figure: Figure, path: Path) -> None:
    """Writes path.png and path.svg, each atomically."""
    for suffix in (".png", ".svg"):
        with atomic_path(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=160)


def tidy(axes: Axes) -> None:
    """No box, light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb")
    axes.set_axisbelow(True)
