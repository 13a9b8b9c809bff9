"""What the doctor found: a row per layer, advice in plain words, a table and a figure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from stochnorm.plots import BLUE, GREY, ORANGE, save_figure, tidy

__all__ = ["Diagnosis", "LayerStatistics"]

# Rules of thumb, not results: see docs/doctor.md. Shift and noise in inherited standard deviations, scale in octaves of
# the variance.
NEAR_SHIFT, FAR_SHIFT = 0.25, 1.0
NEAR_SCALE, FAR_SCALE = 0.5, 2.0
NOISY = 0.25


@dataclass(frozen=True)
class LayerStatistics:
    """One normalization layer: the data's statistics of its input against the inherited ones.

    Channels are measured in units of their inherited standard deviation, sqrt(running_var + eps); medians are over
    the channels that are not dead, and nan where all are.
    """

    name: str
    channels: int
    shift: float
    """Median of ``|mean of the data - running_mean|``."""
    shift_low: float
    """Its 10th percentile over channels."""
    shift_high: float
    """Its 90th percentile."""
    beyond: float
    """Share of channels with a shift above 1."""
    scale: float
    """Median of ``|log2((variance of the data + eps) / (running_var + eps))|``: 1 is twice or half the variance."""
    noise: float
    """Median standard deviation of the mini-batches' means: how much batch statistics wobble at this batch size."""
    dead: int
    """Channels that did not vary in pre-training (running_var below eps); eps alone holds their moving branch."""
    awake: int
    """Those of them that the moving branch would give a mean beyond 1 or a standard deviation beyond 2."""

    @property
    def far(self) -> bool:
        """The inherited statistics do not fit: a mean off by 1 sigma, or a variance by a factor of 4."""
        return self.shift >= FAR_SHIFT or self.scale >= FAR_SCALE

    @property
    def near(self) -> bool:
        """They fit: means within 0.25 sigma and variances within a factor of 1.4."""
        return self.shift < NEAR_SHIFT and self.scale < NEAR_SCALE


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`doctor` found."""

    rows: list[LayerStatistics]
    """The layers, in the order of the forward pass."""
    images: int
    batches: int

    @property
    def shift(self) -> float:
        """Median of the layers' shifts."""
        return _median(row.shift for row in self.rows)

    @property
    def scale(self) -> float:
        """Median of the layers' scales."""
        return _median(row.scale for row in self.rows)

    @property
    def noise(self) -> float:
        """Median of the layers' noise."""
        return _median(row.noise for row in self.rows)

    @property
    def advice(self) -> list[str]:
        """What the numbers suggest about p and freezing, in plain words; rules of thumb, see docs/doctor.md."""
        found = f"in the median layer, means are off by {self.shift:.2f} sigma and variances {2**self.scale:.1f}-fold"
        if self.shift >= FAR_SHIFT or self.scale >= FAR_SCALE:
            advice = [
                f"The data lie far from the inherited statistics ({found}): the moving branch normalizes by statistics "
                "that do not fit. Do not freeze them; prefer p near 1, or start from statistics of the target data."
            ]
        elif self.shift < NEAR_SHIFT and self.scale < NEAR_SCALE:
            advice = [
                f"The inherited statistics fit the data ({found}): frozen statistics are worth a try, and any p is "
                "sound; p = 0.5 is the place to start."
            ]
        else:
            advice = [
                f"The data lie at some distance from the inherited statistics ({found}): let the statistics adapt, so "
                "do not freeze them; p = 0.5 is the place to start."
            ]
        far = [row.name for row in self.rows if row.far]
        if far and len(far) < len(self.rows) / 2:
            advice.append(
                f"{len(far)} of {len(self.rows)} layers are far off all the same ({_some(far)}): leave those out of "
                "freezing, and of StochNorm if training is unstable."
            )
        if self.noise >= NOISY:
            advice.append(
                f"Batch statistics are noisy at {self.images / self.batches:.0f} images a batch (means wobble by "
                f"{self.noise:.2f} sigma): larger batches, or a smaller p, would steady the normalization."
            )
        awake = [row for row in self.rows if row.awake]
        if awake:
            advice.append(
                f"{sum(row.awake for row in awake)} channels that did not vary in pre-training do so here (in "
                f"{_some([row.name for row in awake])}): the moving branch divides them by sqrt(eps) and may blow them "
                "up. If the loss jumps, leave these layers out of StochNorm and of freezing."
            )
        advice.append(
            "These are rules of thumb: the shift says whether the moving branch is sound, not whether it helps. "
            "Compare with BatchNorm on your validation split."
        )
        return advice

    def show(self, console: Console) -> None:
        """Print the table and the advice."""
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("layer", overflow="fold")
        for title in ("channels", "shift, sigma", "beyond 1, %", "scale, log2", "noise, sigma", "dead", "awake"):
            table.add_column(title, justify="right")
        for row in self.rows:
            style = "red" if row.far else None if row.near else "yellow"
            values = (f"{row.shift:.2f}", f"{100 * row.beyond:.0f}", f"{row.scale:.2f}", f"{row.noise:.2f}")
            counts = (str(count) if count else "" for count in (row.dead, row.awake))
            table.add_row(row.name, str(row.channels), *values, *counts, style=style)
        console.print(table)
        console.print(f"{self.images} images in {self.batches} batches", style="dim")
        for line in self.advice:
            console.print(f"- {line}", markup=False)

    def plot(self, path: Path) -> None:
        """Shift, noise and scale over the layers in order; path.png and path.svg."""
        figure = Figure(figsize=(8, 5), layout="constrained")
        means, variances = figure.subplots(2, sharex=True)
        x = range(1, len(self.rows) + 1)
        low, high = [row.shift_low for row in self.rows], [row.shift_high for row in self.rows]
        means.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0, label="shift, 10 to 90 % of channels")
        means.plot(x, [row.shift for row in self.rows], color=BLUE, marker=".", label="shift, median channel")
        means.plot(x, [row.noise for row in self.rows], color=ORANGE, marker=".", label="noise of a batch's mean")
        variances.plot(x, [row.scale for row in self.rows], color=BLUE, marker=".")
        for axes, near, far in ((means, NEAR_SHIFT, FAR_SHIFT), (variances, NEAR_SCALE, FAR_SCALE)):
            for bound, name in ((near, "near"), (far, "far")):
                axes.axhline(bound, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
                axes.text(1.005, bound, name, color=GREY, fontsize=8, va="center", transform=axes.get_yaxis_transform())
            axes.set_xlim(0.5, len(self.rows) + 0.5)
            tidy(axes)
        means.set_title("means: distance from the inherited ones, in standard deviations", loc="left", fontsize=10)
        variances.set_title("variances: |log2| of their ratio to the inherited ones", loc="left", fontsize=10)
        means.set_ylim(0, 1.25 * max([FAR_SHIFT, *filter(math.isfinite, high)]))
        variances.set_ylim(0, 1.1 * max([FAR_SCALE, *filter(math.isfinite, (row.scale for row in self.rows))]))
        means.legend(frameon=False, fontsize=8, loc="upper left", ncols=3)
        stages = self._stages()
        if len(stages) <= 16:
            variances.set_xticks(list(stages.values()), list(stages), fontsize=8, rotation=45, ha="right")
        variances.set_xlabel("normalization layer, from the input to the output")
        save_figure(figure, path)

    def _stages(self) -> dict[str, int]:
        """Where each stage begins: a layer's name up to its first number, ``blocks.3`` of ``blocks.3.0.bn1``."""
        stages: dict[str, int] = {}
        for place, row in enumerate(self.rows, 1):
            stages.setdefault(re.sub(r"(\d+)\..*", r"\1", row.name), place)
        return stages


def _median(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else math.nan


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
