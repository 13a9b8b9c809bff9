"""Figures, as PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stochnorm.files import atomic_path

__all__ = ["plot_curves", "save_figure"]

BLUE, ORANGE, GREY = "#2563a8", "#d9731a", "#8a8f98"


def plot_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and accuracy over the steps, training and validation, the selected step marked; path.png and path.svg."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    steps = [record["step"] for record in history]
    best = max(history, key=lambda record: (record["val_top1"], -record["val_loss"]))
    for axes, name, label in ((loss, "loss", "cross-entropy"), (accuracy, "top1", "top-1 accuracy, %")):
        axes.plot(steps, [r[f"train_{name}"] for r in history], color=GREY, marker=".", label="training (augmented)")
        axes.plot(steps, [r[f"val_{name}"] for r in history], color=BLUE, marker=".", label="validation")
        axes.plot(best["step"], best[f"val_{name}"], "o", color=ORANGE, label=f"selected, step {best['step']}")
        axes.set_xlabel("step")
        axes.set_title(label, loc="left", fontsize=10)
        tidy(axes)
    accuracy.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


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
