"""The trials of a search, as a figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from stochnorm.plotting import BLUE, ORANGE, save_figure, tidy

__all__ = ["plot_search"]


def plot_search(trials: list[tuple[dict[str, Any], float]], chosen: tuple[dict[str, Any], float], path: Path) -> None:
    """Draw the validation score over each searched setting, one dot per trial, the best marked; as PNG and SVG.

    Args:
        trials: Settings and score of each complete trial.
        chosen: Settings and score of the best trial.
        path: File to write, without its suffix.
    """
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
    """Return two to four round numbers for a logarithmic axis; more labels would overlap."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 4:
            break
    if len(ticks) < 2:
        ticks = [tick for tick in MaxNLocator(3).tick_values(low, high) if low <= tick <= high]
    return ticks[:: math.ceil(len(ticks) / 4)]
