"""The result of a learning-rate range test: losses by rate, and the rate that they suggest."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stochnorm.plotting import BLUE, GREY, ORANGE, save_figure, tidy

__all__ = ["RULE", "RangeTest", "rates_between", "smoothed"]

_WINDOW = 5  # losses of a median
_SHARE = 4  # of the edge
_FEWEST = 10  # losses that a suggestion needs
RULE = (
    "a quarter of the largest rate whose smoothed loss is near the lowest one: above it by at most half of the fall "
    "before, half of itself, or the noise of a batch"
)
"""How the rate is suggested, in words."""


def rates_between(lowest: float, highest: float, steps: int) -> list[float]:
    """Return rates that rise exponentially.

    Raises:
        ValueError: The range is empty, or there are fewer than ten steps.

    Example:
        >>> [round(rate, 4) for rate in rates_between(0.001, 1.0, 10)][::3]
        [0.001, 0.01, 0.1, 1.0]
    """
    if not 0 < lowest < highest < math.inf:
        raise ValueError(f"the rates must rise from above 0, got {lowest:g} to {highest:g}; give lowest below highest")
    if steps < _FEWEST:
        raise ValueError(f"the range test needs at least {_FEWEST} steps, got {steps}; give {_FEWEST} or more")
    return [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the median of five losses around each one, fewer at the ends; it does not lag, nor heed a single batch.

    Example:
        >>> smoothed([5.0, 4.0, 9.0, 3.0, 2.0])
        [5.0, 4.5, 4.0, 3.5, 3.0]
    """
    half = _WINDOW // 2
    return [statistics.median(losses[max(i - half, 0) : i + half + 1]) for i in range(len(losses))]


@dataclass(frozen=True)
class RangeTest:
    """The losses of a training whose learning rate rises at each step."""

    method: str
    rates: tuple[float, ...]
    """The rate of each step, of the backbone."""
    losses: tuple[float, ...]
    """The loss of each step that it minimizes, penalties included; the last one may be far above the others."""

    @property
    def edge(self) -> float | None:
        """The largest rate whose smoothed loss is near the lowest one; None if there are too few losses."""
        if len(self.losses) < _FEWEST:
            return None
        course = smoothed(self.losses)
        lowest = min(course)
        fall = max(course[: course.index(lowest) + 1]) - lowest
        noise = 3 * statistics.median(abs(loss - middle) for loss, middle in zip(self.losses, course, strict=True))
        most = lowest + max(min(fall, abs(lowest)) / 2, noise)
        return self.rates[max(i for i, loss in enumerate(course) if loss <= most)]

    @property
    def suggested(self) -> float | None:
        """The suggested rate, to two digits, see [stochnorm.training.range_test.RULE][]; None without an edge."""
        return None if self.edge is None else float(f"{self.edge / _SHARE:.2g}")

    def lines(self, most: int = 12) -> list[str]:
        """Return some rates with their smoothed losses, a line each."""
        step = max(math.ceil(len(self.losses) / most), 1)
        pairs = list(zip(self.rates, smoothed(self.losses), strict=True))[::step]
        return [f"{rate:9.2g}  {loss:8.3f}" for rate, loss in pairs]

    def to_json(self) -> str:
        """Format rates, losses, edge, suggestion and rule as JSON."""
        content = {
            "method": self.method,
            "suggested": self.suggested,
            "rule": RULE,
            "edge": self.edge,
            "rates": self.rates,
            "losses": self.losses,
            "smoothed": smoothed(self.losses),
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def plot(self, path: Path) -> None:
        """Draw the losses over the rates, with edge and suggestion; as PNG and SVG.

        Args:
            path: File to write, without its suffix.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        course = smoothed(self.losses)
        axes.plot(self.rates, self.losses, color=GREY, linewidth=1, label="loss")
        axes.plot(self.rates, course, color=BLUE, label="smoothed")
        if self.edge is not None and self.suggested is not None:
            axes.axvline(self.edge, color=GREY, linestyle=":", label=f"edge {self.edge:.2g}")
            axes.axvline(self.suggested, color=ORANGE, label=f"suggested {self.suggested:g}")
        axes.set_xscale("log")
        axes.set_ylim(0, 1.5 * max(course[: max(len(course) // 2, 1)]))
        axes.set_xlabel("learning rate of the backbone")
        axes.set_title(f"training loss, {self.method}", loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
        save_figure(figure, path)
