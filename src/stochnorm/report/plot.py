"""A comparison as a figure: each method's runs at one rate, or its means over the rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stochnorm.plotting import GREY, PALETTE, color_numbers, drawn, save_figure, tidy
from stochnorm.report.statistics import Summary, summarize
from stochnorm.runs.records import Record
from stochnorm.runs.scores import SCORES
from stochnorm.text import span

__all__ = ["draw_comparison", "plot_comparison"]

_LETTER, _SHORT = 0.08, 18  # inches of a letter of a row's name; letters that the usual width has room for


def plot_comparison(records: Sequence[Record], path: Path, reference: str = "vanilla") -> None:
    """Write path.png and path.svg; see [stochnorm.report.plot.draw_comparison][]."""
    save_figure(draw_comparison(records, reference), path)


def draw_comparison(records: Sequence[Record], reference: str = "vanilla") -> Figure:
    """Draw a panel per data set and backbone: at one rate a row per variant, over several a line.

    Colors are those of the HTML page: grey for the reference, then by the order of the variants.

    Args:
        records: Records of runs; those without a test score are left out.
        reference: Variant whose mean is drawn through the rows.
    """
    everything = summarize(records)
    numbers = color_numbers([summary.variant for summary in everything], reference)
    summaries = [summary for summary in everything if summary.n]
    colors = {summary.variant: PALETTE[numbers[summary.variant]] for summary in summaries}
    panels = {summary.cell[:2]: [s for s in summaries if s.cell[:2] == summary.cell[:2]] for summary in summaries}
    over_rates = any(len({s.cell.rate for s in panel}) > 1 for panel in panels.values())
    height = 3.4 if over_rates else 1.2 + 0.3 * len(colors)
    longest = 0 if over_rates else max(map(len, colors), default=0)
    width = max(4.2 * len(panels), 6.0) + _LETTER * max(longest - _SHORT, 0)
    figure = Figure(figsize=(width, height), layout="constrained")
    if not panels:
        return figure
    several = len({backbone for _, backbone in panels}) > 1
    scale = next((f" ({record.scale} scale: no result)" for record in records if record.scale), "")
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=not over_rates)[0]
    for axes, ((data, backbone), panel) in zip(all_axes, panels.items(), strict=True):
        if over_rates:
            _lines(axes, panel, colors)
        else:
            _rows(axes, panel, colors, reference)
        rate = "" if over_rates else f", {panel[0].cell.rate:g} % of the training images"
        axes.set_title(f"{drawn(data)}{rate}{f', {backbone}' if several else ''}{scale}", loc="left", fontsize=10)
    return figure


def _rows(axes: Axes, panel: Sequence[Summary], colors: Mapping[str, str], reference: str) -> None:
    found = {summary.variant: summary for summary in panel}
    if reference in found:
        axes.axvline(fmean(found[reference].values.values()), color=GREY, linewidth=1, linestyle="--", zorder=0)
    for y, (variant, color) in enumerate(colors.items()):
        if variant not in found:
            continue
        values = list(found[variant].values.values())
        axes.plot(values, [y] * len(values), "o", color=color, alpha=0.35, markersize=5, markeredgewidth=0)
        axes.plot(fmean(values), y, "|", color=color, markersize=15, markeredgewidth=2.5)
        axes.annotate(f"{fmean(values):.1f}", (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set_yticks(range(len(colors)), list(map(drawn, colors)))
    axes.set_ylim(len(colors) - 0.5, -0.5)
    runs = span(summary.n for summary in panel)
    axes.set_xlabel(f"test {SCORES[panel[0].score].short}, %: dot = run (n = {runs}), bar = mean", fontsize=9)
    tidy(axes)
    axes.grid(axis="x", color="#e5e7eb")


def _lines(axes: Axes, panel: Sequence[Summary], colors: Mapping[str, str]) -> None:
    rates = sorted({summary.cell.rate for summary in panel})
    for variant, color in colors.items():
        points = sorted((s for s in panel if s.variant == variant), key=lambda s: s.cell.rate)
        if not points:
            continue
        axes.errorbar(
            [rates.index(s.cell.rate) for s in points],
            [fmean(s.values.values()) for s in points],
            [s.std or 0.0 for s in points],
            color=color,
            marker="o",
            markersize=4,
            capsize=3,
            label=drawn(variant),
        )
    axes.set_xticks(range(len(rates)), [f"{rate:g} %" for rate in rates])
    axes.set_xlabel("share of the training images", fontsize=9)
    axes.set_ylabel(f"test {SCORES[panel[0].score].short}, %: mean ± std", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
