"""Figures, as PNG and SVG."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stochnorm.files import atomic_path

__all__ = ["save_figure", "tidy"]

BLUE, ORANGE, GREY = "#2563a8", "#d9731a", "#8a8f98"


def save_figure(figure: Figure, path: Path) -> None:
    """Write path.png and path.svg, each atomically."""
    for suffix in (".png", ".svg"):
        with atomic_path(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=160)


def tidy(axes: Axes) -> None:
    """Remove the box and draw a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb")
    axes.set_axisbelow(True)
