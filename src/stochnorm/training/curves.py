"""The training curves of a run, as a figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stochnorm.plotting import BLUE, GREY, ORANGE, save_figure, tidy

__all__ = ["plot_curves"]


def plot_curves(history: list[dict[str, Any]], selected: dict[str, Any], score_title: str, path: Path) -> None:
    """Draw training and validation loss and score over the steps, the best checkpoint marked; as PNG and SVG.

    Args:
        history: One record per validation, in order.
        selected: The record of the best checkpoint, one of `history`.
        score_title: Name of the score, for the title of its panel.
        path: File to write, without its suffix.
    """
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
