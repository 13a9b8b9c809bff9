"""The figure of a diagnosis: shift, noise and scale over the layers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stochnorm.doctor.statistics import FAR_SCALE, FAR_SHIFT, NEAR_SCALE, NEAR_SHIFT, NetworkStatistics
from stochnorm.plotting import BLUE, GREY, ORANGE, drawn, save_figure, tidy

__all__ = ["draw_diagnosis", "plot_diagnosis"]

_LABELS = 36  # maximum number of slanted stage names that fit next to each other
_STAGES = 16  # maximum number of stages


def plot_diagnosis(diagnosis: NetworkStatistics, path: Path) -> None:
    """Write the figure as PNG and SVG; see [stochnorm.doctor.plot.draw_diagnosis][]."""
    save_figure(draw_diagnosis(diagnosis), path)


def draw_diagnosis(diagnosis: NetworkStatistics) -> Figure:
    """Draw two panels, means (shift and noise) and variances (scale); axes are logarithmic above *far* if needed."""
    rows = diagnosis.rows
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    subject = f"{drawn(diagnosis.subject)}: " if diagnosis.subject else ""
    title = f"{subject}{diagnosis.images} images in batches of {diagnosis.batch_size:.0f}"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", wrap=True)
    means, variances = figure.subplots(2, sharex=True)
    x = range(1, len(rows) + 1)
    low, high = [row.shift_low for row in rows], [row.shift_high for row in rows]
    means.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0, label="shift, 10 to 90 % of channels")
    means.plot(x, [row.shift for row in rows], color=BLUE, marker=".", label="shift, median channel")
    means.plot(x, [row.noise for row in rows], color=ORANGE, marker=".", label="noise of a batch's mean, of the data")
    variances.plot(x, [row.scale for row in rows], color=BLUE, marker=".")
    _scale(means, NEAR_SHIFT, FAR_SHIFT, [*high, *(row.noise for row in rows)], headroom=0.25)
    _scale(variances, NEAR_SCALE, FAR_SCALE, [row.scale for row in rows], headroom=0.1)
    means.set_title("means: distance from the inherited means, in standard deviations", loc="left", fontsize=10)
    variances.set_title("variances: |log2| of the ratio to the inherited variances", loc="left", fontsize=10)
    means.legend(frameon=False, fontsize=8, loc="upper left", ncols=3)
    prefix, labels = _stages([row.name for row in rows])
    variances.set_xlim(0.5, len(rows) + 0.5)
    variances.set_xticks(
        list(labels), list(labels.values()), fontsize=8, rotation=45, ha="right", rotation_mode="anchor"
    )
    of = f" of {prefix.rstrip('.')}" if prefix else ""
    variances.set_xlabel(f"normalization layer{of}, from the input to the output")
    return figure


def _scale(axes: Axes, near: float, far: float, values: Sequence[float], headroom: float) -> None:
    """Draw the bounds, and scale the axis so that they are apart even if the values are large."""
    tidy(axes)
    for bound, name in ((near, "near"), (far, "far")):
        axes.axhline(bound, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
        axes.text(1.005, bound, name, color=GREY, fontsize=8, va="center", transform=axes.get_yaxis_transform())
    top = max([far, *filter(math.isfinite, values)])
    if top > 4 * far:
        decades = math.log10(top / far)
        axes.set_yscale("symlog", linthresh=far, linscale=decades)  # half of the axis for what is not far
        powers = range(math.floor(math.log10(far)) + 1, math.floor(math.log10(top)) + 1)
        step = math.ceil(len(powers) / 4)
        ticks = [0, near, far, *(10.0**k for k in powers[step - 1 :: step])]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks([], minor=True)
        axes.set_ylim(0, top * 10 ** (2 * decades * headroom))
    else:
        axes.set_ylim(0, (1 + headroom) * top)


def _stages(names: Sequence[str]) -> tuple[str, dict[int, str]]:
    """Return what all names begin with, and the name of each stage by its first layer, counted from 1.

    A stage is a layer's name up to its first number, `blocks.3` for `blocks.3.0.bn1`, or its first part if there are
    too many stages. If two labels are too close, the stage with fewer layers has none.
    """
    prefix = _shared_beginning(names)
    names = [name.removeprefix(prefix) for name in names]
    stages = [re.sub(r"(\d+)\..*", r"\1", name) for name in names]
    if len(set(stages)) > _STAGES:
        stages = [name.partition(".")[0] for name in names]
    begins = {stage: place for place, stage in reversed(list(enumerate(stages, 1)))}
    shown: dict[int, str] = {}
    for stage in sorted(begins, key=lambda stage: (-stages.count(stage), begins[stage])):
        if all(abs(begins[stage] - other) >= len(names) / _LABELS for other in shown):
            shown[begins[stage]] = stage
    return prefix, shown


def _shared_beginning(names: Sequence[str]) -> str:
    """Return the parts that all names begin with: `features.` for `features.0` and `features.1`; never a whole name."""
    parts = [name.split(".")[:-1] for name in names]
    shared = takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
    return "".join(f"{level[0]}." for level in shared)
