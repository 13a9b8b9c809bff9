"""Fit the exponent of a power law to the growth of costs, and draw several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from stochnorm.plotting import BLUE, GREY, ORANGE, save_figure, tidy

_COLUMNS = 3
_LEAST = 1e-3  # gigabytes, and seconds: below, the clock and the allocator are measured


@dataclass
class Series:
    """The measurements along one axis."""

    name: str
    """Name of the axis."""
    what: str = ""
    """Measured work, for the picture."""
    sizes: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    gigabytes: list[float] = field(default_factory=list)

    @property
    def exponents(self) -> tuple[float, float]:
        """Exponents of time and memory."""
        return exponent(self.sizes, self.seconds), exponent(self.sizes, self.gigabytes)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope of a straight line through the larger half of the points, at least two, both axes logarithmic.

    Example:
        >>> round(exponent([1, 2, 4, 8], [3, 12, 48, 192]), 6)
        2.0
    """
    half = _half(len(sizes))
    y = np.log(np.maximum(costs, _LEAST))
    return float(np.polyfit(np.log(sizes[half:]), y[half:], 1)[0])


def _half(count: int) -> int:
    """Return the start of the larger half."""
    return min(count // 2, count - 2)


def plot_growth(series: Sequence[Series], path: Path) -> None:
    """Draw time above memory for each axis, with the fitted slopes, three axes per row, as PNG and SVG."""
    lines = [series[i : i + _COLUMNS] for i in range(0, len(series), _COLUMNS)]
    figure = Figure(figsize=(10, 4.4 * len(lines)), layout="constrained")
    for part, line in zip(figure.subfigures(len(lines), 1, squeeze=False)[:, 0], lines, strict=True):
        grid = part.subplots(2, _COLUMNS, squeeze=False)
        for column, one in enumerate(line):
            _panel(grid[0, column], one.sizes, one.seconds, BLUE)
            _panel(grid[1, column], one.sizes, one.gigabytes, ORANGE)
            grid[0, column].set_title(f"{one.what}, by {one.name}", loc="left", fontsize=9.5)
            grid[0, column].tick_params(labelbottom=False)
            grid[1, column].set_xlabel(one.name, fontsize=9)
        for axes in grid[:, len(line) :].flat:
            axes.set_visible(False)
        grid[0, 0].set_ylabel("seconds", fontsize=9)
        grid[1, 0].set_ylabel("added memory, GB", fontsize=9)
    save_figure(figure, path)


def _panel(axes: Axes, sizes: Sequence[float], costs: Sequence[float], color: str) -> None:
    costs = np.maximum(costs, _LEAST)
    half, slope = _half(len(sizes)), exponent(sizes, costs)
    upper = np.array(sizes[half:], dtype=float)
    level = np.exp(np.mean(np.log(costs[half:]) - slope * np.log(upper)))
    axes.plot(upper, level * upper**slope, color=GREY, linewidth=6, alpha=0.3, solid_capstyle="round")
    axes.plot(sizes, costs, "o-", color=color, markersize=4.5, linewidth=1.4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = min(costs), max(costs)
    middle, span = np.sqrt(low * high), max(np.sqrt(high / low), 5) * 2  # no flat line is blown up to noise
    axes.set_ylim(middle / span, middle * span)
    axes.annotate(f"exponent {slope:.2f}", (0.03, 0.9), xycoords="axes fraction", fontsize=9, color="#374151")
    axes.set_xticks([sizes[0], sizes[len(sizes) // 2], sizes[-1]])
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(_short))
    axes.tick_params(labelsize=8.5, length=0)
    tidy(axes)


def _short(value: float, _: int) -> str:
    """1000 as 1k."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:g}"
