"""Figures on disk and their axes."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from stochnorm.plotting import PALETTE, color_numbers, drawn, save_figure, tidy


def test_a_figure_is_written_as_png_and_svg(tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.subplots()
    tidy(axes)
    save_figure(figure, tmp_path / "plot")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.png", "plot.svg"]
    assert not axes.spines["top"].get_visible() and axes.spines["left"].get_visible()


def test_colors_go_by_order_and_the_reference_is_the_first_of_the_palette() -> None:
    names = [f"method {i}" for i in range(12)]
    numbers = color_numbers(names, "method 3")
    assert numbers["method 3"] == 0
    assert [numbers[name] for name in names if name != "method 3"] == [*range(1, 10), 1, 2]
    assert len(set(PALETTE)) == len(PALETTE) == 10
    assert color_numbers(names, "none of them")["method 0"] == 1


def test_names_are_drawn_without_boxes_warnings_or_mathematics(tmp_path: Path) -> None:
    """Warnings are errors here: matplotlib warns of each glyph that it draws as a box."""
    name = "\u9ce5 \u05d0\u05d1 $\\frac$ \U0001f600 \x1b[31m"
    assert drawn(name) == "U+9CE5 \u05d0\u05d1 \\$\\frac\\$ U+1F600 \\x1b[31m".replace("U+1F600", drawn("\U0001f600"))
    figure = Figure()
    axes = figure.subplots()
    axes.set_yticks([0, 1], [drawn(name), drawn("plain")])
    axes.set_title(drawn(name))
    save_figure(figure, tmp_path / "plot")
    assert drawn("plain, gr\u00fcn") == "plain, gr\u00fcn"
