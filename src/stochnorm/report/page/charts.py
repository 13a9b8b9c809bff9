"""The charts, as Plotly figures: plain data, from numbers.

Colors are names of the page's own, such as ``var(--s1)``, which the page's script resolves for light, dark and paper.
Plotly takes text for markup; what comes from a file goes through :func:`plain`. Numbers that are not finite are gaps.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stochnorm.report.page.analysis import Bin, ClassScore
from stochnorm.report.statistics import Difference, Summary, significant
from stochnorm.text import count, interval

__all__ = [
    "NAMED",
    "Style",
    "accuracy_figure",
    "calibration_figure",
    "class_figure",
    "confusion_figure",
    "curve_figure",
    "gain_figure",
    "plain",
    "shorten",
    "styles",
]

_CHARACTER = 6.4  # pixels of an axis's label; Plotly's automatic margins do not settle on narrow screens

NAMED = 30
"""Classes that have room for their names."""

Figure = dict[str, Any]
"""What Plotly takes, and for the page's script ``confusion``, and ``squat``: low on paper."""

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "star", "cross", "x")
_HUES = 9  # --s1 to --s9 of the style sheet; --s0 is the reference's grey
_POINTS = 200  # of a curve; more cannot be seen


@dataclass(frozen=True)
class Style:
    """How a variant looks in every chart."""

    color: str
    symbol: str
    dash: str = "solid"


def styles(variants: Sequence[str], reference: str) -> dict[str, Style]:
    """Grey and dashed for the reference; for the others colors, and symbols for those who cannot tell them apart."""
    others = [name for name in variants if name != reference]
    found = {
        name: Style(f"var(--s{i % _HUES + 1})", _SYMBOLS[i % len(_SYMBOLS)], "solid" if i < _HUES else "dot")
        for i, name in enumerate(others)
    }
    return {name: found.get(name, Style("var(--s0)", "circle", "dash")) for name in variants}


def plain(text: str) -> str:
    """Text that Plotly shows as it is.

    Example:
        >>> plain("<b>R&D</b>")
        '&lt;b&gt;R&amp;D&lt;/b&gt;'
    """
    return html.escape(text, quote=False)


def shorten(text: str, length: int = 22) -> str:
    """Text for the label of an axis: its beginning and its end.

    Example:
        >>> shorten("001.Black_footed_Albatross", 15)
        '001.Bla…batross'
    """
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def accuracy_figure(summaries: Sequence[Summary], style: Mapping[str, Style]) -> Figure:
    """Mean test score against the sampling rate, with the standard deviation over the repeats.

    With a single rate: a row per variant, a dot per repeat.
    """
    rates = sorted({s.cell.rate for s in summaries})
    return _by_rate(summaries, rates, style) if len(rates) > 1 else _of_one_rate(summaries, style)


def _by_rate(summaries: Sequence[Summary], rates: Sequence[float], style: Mapping[str, Style]) -> Figure:
    variants = _variants(summaries)
    gap = min(math.log10(high / low) for low, high in itertools.pairwise(rates))
    data = []
    for variant, shift in zip(variants, _dodge(len(variants), 0.2 * gap), strict=True):
        points = sorted(
            (s for s in summaries if s.variant == variant and s.mean is not None), key=lambda s: s.cell.rate
        )
        data.append(
            {
                **_trace(variant, style[variant]),
                "mode": "lines+markers",
                "x": [s.cell.rate * 10**shift for s in points],
                "y": [s.mean for s in points],
                "error_y": _error(style[variant], [s.std or 0 for s in points]),
                "text": [_score_text(s) for s in points],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    ends = [math.log10(rates[0]) - 0.4 * gap, math.log10(rates[-1]) + 0.4 * gap]
    axis = {"type": "log", "range": ends, "tickvals": rates, "ticktext": [f"{r:g} %" for r in rates], "zeroline": False}
    layout = {"height": 380, "xaxis": axis, "yaxis": {"ticksuffix": " %", "nticks": 7}}
    return {"data": data, "layout": layout, "squat": True}


def _of_one_rate(summaries: Sequence[Summary], style: Mapping[str, Style]) -> Figure:
    rows = [s for s in summaries if s.mean is not None]
    data: list[Figure] = []
    for place, s in enumerate(rows):
        values = list(s.values.values())
        repeats = {
            **_trace(s.variant, style[s.variant]),
            "mode": "markers",
            "x": values,
            "y": [place] * len(values),
            "opacity": 0.45,
            "hovertemplate": "one run: %{x:.1f} %<extra></extra>",
        }
        repeats["marker"] = {"size": 6, "symbol": "circle-open", "color": style[s.variant].color}
        mean = {
            **_trace(s.variant, style[s.variant]),
            "mode": "markers",
            "x": [s.mean],
            "y": [place],
            "error_x": _error(style[s.variant], [s.std or 0]),
            "text": [_score_text(s)],
            "hovertemplate": "%{text}<extra></extra>",
        }
        data += [repeats, mean] if len(values) > 1 else [mean]
    return {"data": data, "layout": _rows_layout([s.variant for s in rows]) | {"xaxis": {"ticksuffix": " %"}}}


def gain_figure(differences: Sequence[Difference], style: Mapping[str, Style]) -> Figure:
    """Gain over the reference with its 95 % interval; filled where it is significant.

    By sampling rate, the variants side by side; with a single rate a row per variant.
    """
    rates = sorted({d.cell.rate for d in differences})
    variants = _variants(differences)
    upright = len(rates) > 1
    value, other = ("y", "x") if upright else ("x", "y")
    data = []
    for number, (variant, shift) in enumerate(zip(variants, _dodge(len(variants), 0.36), strict=True)):
        points = sorted((d for d in differences if d.variant == variant), key=lambda d: d.cell.rate)
        symbol = style[variant].symbol
        data.append(
            {
                **_trace(variant, style[variant]),
                "mode": "markers",
                value: [d.mean for d in points],
                other: [rates.index(d.cell.rate) + shift if upright else number for d in points],
                f"error_{value}": _error(
                    style[variant],
                    [d.interval[1] - d.mean if d.interval else 0 for d in points],
                    [d.mean - d.interval[0] if d.interval else 0 for d in points],
                ),
                "marker": {
                    "size": 8,
                    "color": style[variant].color,
                    "symbol": [symbol if significant(d) else f"{symbol}-open" for d in points],
                    "line": {"width": 1.5, "color": style[variant].color},
                },
                "text": [_gain_text(d) for d in points],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    zero = {"type": "line", f"{value}0": 0, f"{value}1": 0, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    shapes: list[Figure] = [zero | {"line": {"color": "var(--s0)", "width": 1.5, "dash": "dash"}, "layer": "between"}]
    if not upright:
        return {"data": data, "layout": _rows_layout(variants) | {"xaxis": {"zeroline": False}, "shapes": shapes}}
    band = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}, "layer": "below"}
    shapes += [band | {"x0": i - 0.5, "x1": i + 0.5, "fillcolor": "var(--band)"} for i in range(0, len(rates), 2)]
    ticks = {"tickvals": list(range(len(rates))), "ticktext": [f"{r:g} %" for r in rates]}
    axis = ticks | {"range": [-0.5, len(rates) - 0.5], "showgrid": False, "zeroline": False}
    layout = {"height": 380, "xaxis": axis, "yaxis": {"zeroline": False}, "shapes": shapes}
    return {"data": data, "layout": layout, "squat": True}


def curve_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float | None], Style]],
    selected: int | None = None,
    *,
    percent: bool = False,
) -> Figure:
    """Values over training steps.

    Args:
        curves: By name: steps, values, style.
        selected: The step of the model that was kept, marked on the last curve.
        percent: Of what the values are.
    """
    data: list[Figure] = []
    unit = " %" if percent else ""
    form = ".1f" if percent else ".3f"
    for name, (steps, values, style) in curves.items():
        kept = _thinned(len(steps))
        data.append(
            {
                **_trace(name, style),
                "mode": "lines+markers" if len(kept) <= 30 else "lines",
                "x": [steps[i] for i in kept],
                "y": [_number(values[i]) for i in kept],
                "hovertemplate": f"%{{fullData.name}}: %{{y:{form}}}{unit}<extra></extra>",
            }
        )
        data[-1]["marker"] = {"size": 5, "color": style.color}
    if selected is not None and curves:
        steps, values, _ = list(curves.values())[-1]
        if selected in steps:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [selected],
                    "y": [_number(values[list(steps).index(selected)])],
                    "marker": {"size": 12, "color": "var(--mark)", "symbol": "circle-open", "line": {"width": 2.5}},
                    "hovertemplate": f"kept: step {selected}<extra></extra>",
                }
            )
    axis = {"title": {"text": "step"}, "rangemode": "tozero", "zeroline": False, "nticks": 7}
    layout = {"height": 280, "hovermode": "x unified", "xaxis": axis, "yaxis": {"ticksuffix": unit, "nticks": 6}}
    return {"data": data, "layout": layout}


def class_figure(scores: Sequence[ClassScore], start: float = 0.0) -> Figure:
    """The score of each class, the weakest first, with its 95 % interval; many classes without their names.

    With few classes the axis begins at ``start``, or where the lowest interval does.
    """
    known = sorted((s for s in scores if s.value is not None), key=lambda s: (s.value, s.name))
    text = [f"<b>{plain(s.name)}</b><br>{s.value:.1f} %{_bounds(s.interval)}, {s.images} images" for s in known]
    common = {"text": text, "hovertemplate": "%{text}<extra></extra>"}
    values = [s.value for s in known]
    above = [s.interval[1] - s.value if s.interval and s.value is not None else 0 for s in known]
    below = [s.value - s.interval[0] if s.interval and s.value is not None else 0 for s in known]
    if len(known) > NAMED:
        bar = {"type": "bar", "y": values, "x": list(range(1, len(known) + 1)), "marker": {"color": "var(--s1)"}}
        layout = {
            "height": 260,
            "bargap": 0.12 if len(known) <= 120 else 0,
            "xaxis": {"title": {"text": "classes, the weakest first"}, "showgrid": False, "zeroline": False},
            "yaxis": {"range": [0, 100], "ticksuffix": " %", "nticks": 6},
        }
        return {"data": [{**bar, **common, "textposition": "none"}], "layout": layout}
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": values,
        "y": list(range(len(known))),
        "marker": {"size": 9, "color": "var(--s1)"},
        "error_x": _error(Style("var(--s1)", ""), above, below),
    }
    lowest = min([start, *(s.interval[0] - 2 for s in known if s.interval)])
    axis = {"range": [max(lowest, 0), 103], "ticksuffix": " %", "nticks": 6, "zeroline": False}
    return {"data": [dots | common], "layout": _rows_layout([s.name for s in known]) | {"xaxis": axis}}


def confusion_figure(cells: Mapping[tuple[int, int], int], classes: Sequence[str]) -> Figure:
    """The confusion matrix by its cells that are not zero; the page's script spreads them out."""
    names = [plain(name) for name in classes]
    places = list(range(len(classes)))
    labels = {"tickvals": places, "ticktext": [plain(shorten(name, 16)) for name in classes]}
    named = len(classes) <= NAMED
    axis: Figure = labels | {"automargin": False} if named else {"showticklabels": False, "ticks": ""}
    axis |= {"showgrid": False, "zeroline": False, "range": [-0.5, len(classes) - 0.5]}
    side = min(600, max(320, 40 * len(classes) + 120))
    layout: Figure = {
        "height": side,
        "xaxis": axis | {"title": {"text": "predicted"}, "tickangle": -45},
        "yaxis": axis | {"title": {"text": "true"}, "range": [len(classes) - 0.5, -0.5]},
    }
    if named:
        length = max(len(shorten(name, 16)) for name in classes)
        layout["margin"] = {"l": 38 + _CHARACTER * length, "b": 48 + 4.6 * length, "t": 8, "r": 14}
        layout["xaxis"] |= {"title": {"text": "predicted", "standoff": 4}}
    return {"data": [], "layout": layout, "confusion": {"classes": names, "cells": [[*k, n] for k, n in cells.items()]}}


def calibration_figure(bins: Sequence[Bin]) -> Figure:
    """How often predictions were right against the probability they came with, and how many came with it."""
    total = sum(b.size for b in bins)
    error = [1.96 * math.sqrt(max(b.frequency * (1 - b.frequency), 0.25 / (b.size + 4)) / b.size) for b in bins]
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 100],
        "y": [0, 100],
        "line": {"color": "var(--s0)", "dash": "dash", "width": 1.5},
        "hoverinfo": "skip",
    }
    measured = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [100 * b.confidence for b in bins],
        "y": [100 * b.frequency for b in bins],
        "error_y": _error(
            Style("var(--s1)", ""),
            [100 * min(e, 1 - b.frequency) for b, e in zip(bins, error, strict=True)],
            [100 * min(e, b.frequency) for b, e in zip(bins, error, strict=True)],
        ),
        "line": {"color": "var(--s1)", "width": 2},
        "marker": {"color": "var(--s1)", "size": 8},
        "text": [f"{b.size} predictions" for b in bins],
        "hovertemplate": "said %{x:.0f} %, right %{y:.0f} %<br>%{text}<extra></extra>",
    }
    counts = {
        "type": "bar",
        "x": [100 * b.confidence for b in bins],
        "y": [100 * b.size / total for b in bins],
        "width": 5,
        "yaxis": "y2",
        "marker": {"color": "var(--s1)"},
        "opacity": 0.55,
        "hovertemplate": "%{y:.1f} % of the predictions<extra></extra>",
    }
    axis = {"range": [0, 102], "ticksuffix": " %", "zeroline": False, "dtick": 20}
    layout = {
        "height": 340,
        "xaxis": axis | {"title": {"text": "probability given"}, "anchor": "y2"},
        "yaxis": axis | {"title": {"text": "right"}, "domain": [0.27, 1]},
        "yaxis2": {"title": {"text": "share"}, "ticksuffix": " %", "domain": [0, 0.18], "nticks": 3},
    }
    return {"data": [diagonal, measured, counts], "layout": layout}


def _trace(name: str, style: Style) -> Figure:
    """What all traces of a variant share; ``meta`` is what the page's legend knows it by."""
    return {
        "type": "scatter",
        "name": plain(name),
        "meta": {"variant": name},
        "line": {"color": style.color, "width": 2, "dash": style.dash},
        "marker": {"color": style.color, "symbol": style.symbol, "size": 8},
    }


def _error(style: Style, above: Sequence[float], below: Sequence[float] | None = None) -> Figure:
    bars: Figure = {"type": "data", "array": list(above), "color": style.color, "thickness": 1.3, "width": 0}
    return bars if below is None else bars | {"symmetric": False, "arrayminus": list(below)}


def _rows_layout(names: Sequence[str]) -> Figure:
    """A row per name, the first on top."""
    length = max((len(shorten(name)) for name in names), default=0)
    return {
        "height": 70 + 30 * len(names),
        "yaxis": {
            "tickvals": list(range(len(names))),
            "ticktext": [plain(shorten(name)) for name in names],
            "range": [len(names) - 0.4, -0.6],
            "zeroline": False,
            "automargin": False,
        },
        "margin": {"l": 18 + _CHARACTER * length, "r": 24, "t": 8, "b": 10},
    }


def _variants(items: Sequence[Summary] | Sequence[Difference]) -> list[str]:
    return list(dict.fromkeys(item.variant for item in items))


def _dodge(count: int, width: float) -> list[float]:
    """Places side by side, around 0."""
    return [width * (2 * i / (count - 1) - 1) if count > 1 else 0.0 for i in range(count)]


def _score_text(s: Summary) -> str:
    spread = f" ± {s.std:.1f}" if s.std is not None else ""
    return f"<b>{plain(s.variant)}</b> at {s.cell.rate:g} %<br>{s.mean:.1f}{spread} %, {count(s.n, 'run')}"


def _gain_text(d: Difference) -> str:
    p = f", p = {d.p_holm:.2g}" if d.p_holm is not None else ""
    return f"<b>{plain(d.variant)}</b> at {d.cell.rate:g} %<br>{d.mean:+.1f} points{_bounds(d.interval)}{p}"


def _bounds(bounds: tuple[float, float] | None) -> str:
    return f" ({interval(bounds)})" if bounds else ""


def _thinned(length: int) -> list[int]:
    """At most as many places as can be seen, the last among them."""
    step = max(1, math.ceil(length / _POINTS))
    return sorted({*range(0, length, step), *([length - 1] if length else [])})


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
