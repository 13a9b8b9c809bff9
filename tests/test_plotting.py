"""Figures on disk and their axes."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from stochnorm.plotting import save_figure, tidy


def test_a_figure_is_written_as_png_and_svg(tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.subplots()
    tidy(axes)
    save_figure(figure, tmp_path / "plot")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.png", "plot.svg"]
    assert not axes.spines["top"].get_visible() and axes.spines["left"].get_visible()
