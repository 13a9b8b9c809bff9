"""The charts of a run: curves, classes, confusion, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from stochnorm.report.page.analysis import ClassScore
from stochnorm.report.page.charts import (
    CHARACTER,
    Figure,
    Style,
    bounds_text,
    error_bars,
    finite,
    plain,
    rows_layout,
    shorten,
    trace,
)
from stochnorm.runs.calibration import Bin

__all__ = ["NAMED", "calibration_figure", "class_figure", "confusion_figure", "curve_figure"]

NAMED = 30
"""Maximum number of classes that have room for their names."""

_POINTS = 200  # of a curve; more cannot be seen


def curve_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float | None], Style]],
    selected: int | None = None,
    *,
    percent: bool = False,
) -> Figure:
    """Draw values over training steps.

    Args:
        curves: Steps, values and style by name.
        selected: Step of the best checkpoint, marked on the last curve.
        percent: Whether the values are percentages.
    """
    data: list[Figure] = []
    unit = " %" if percent else ""
    form = ".1f" if percent else ".3f"
    for name, (steps, values, style) in curves.items():
        kept = _thinned(len(steps))
        data.append(
            {
                **trace(name, style),
                "mode": "lines+markers" if len(kept) <= 30 else "lines",
                "x": [steps[i] for i in kept],
                "y": [finite(values[i]) for i in kept],
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
                    "y": [finite(values[list(steps).index(selected)])],
                    "marker": {"size": 12, "color": "var(--mark)", "symbol": "circle-open", "line": {"width": 2.5}},
                    "hovertemplate": f"best checkpoint: step {selected}<extra></extra>",
                }
            )
    axis = {"title": {"text": "step"}, "rangemode": "tozero", "zeroline": False, "nticks": 7}
    layout = {"height": 280, "hovermode": "x unified", "xaxis": axis, "yaxis": {"ticksuffix": unit, "nticks": 6}}
    return {"data": data, "layout": layout}


def class_figure(scores: Sequence[ClassScore], start: float = 0.0) -> Figure:
    """Draw the score of each class, the weakest first, with its 95 % interval; many classes without their names.

    With few classes the axis begins at ``start``, or where the lowest interval does.
    """
    known = sorted((s for s in scores if s.value is not None), key=lambda s: (s.value, s.name))
    text = [f"<b>{plain(s.name)}</b><br>{s.value:.1f} %{bounds_text(s.interval)}, {s.images} images" for s in known]
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
        "error_x": error_bars(Style("var(--s1)", ""), above, below),
    }
    lowest = min([start, *(s.interval[0] - 2 for s in known if s.interval)])
    axis = {"range": [max(lowest, 0), 103], "ticksuffix": " %", "nticks": 6, "zeroline": False}
    return {"data": [dots | common], "layout": rows_layout([s.name for s in known]) | {"xaxis": axis}}


def confusion_figure(cells: Mapping[tuple[int, int], int], classes: Sequence[str]) -> Figure:
    """Draw the confusion matrix from its cells that are not zero; the page's script fills the grid."""
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
        layout["margin"] = {"l": 38 + CHARACTER * length, "b": 48 + 4.6 * length, "t": 8, "r": 14}
        layout["xaxis"] |= {"title": {"text": "predicted", "standoff": 4}}
    return {"data": [], "layout": layout, "confusion": {"classes": names, "cells": [[*k, n] for k, n in cells.items()]}}


def calibration_figure(bins: Sequence[Bin]) -> Figure:
    """Draw the accuracy of predictions against their probability, and how many have each probability."""
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
        "error_y": error_bars(
            Style("var(--s1)", ""),
            [100 * min(e, 1 - b.frequency) for b, e in zip(bins, error, strict=True)],
            [100 * min(e, b.frequency) for b, e in zip(bins, error, strict=True)],
        ),
        "line": {"color": "var(--s1)", "width": 2},
        "marker": {"color": "var(--s1)", "size": 8},
        "text": [f"{b.size} predictions" for b in bins],
        "hovertemplate": "predicted %{x:.0f} %, correct %{y:.0f} %<br>%{text}<extra></extra>",
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
        "xaxis": axis | {"title": {"text": "predicted probability"}, "anchor": "y2"},
        "yaxis": axis | {"title": {"text": "correct"}, "domain": [0.27, 1]},
        "yaxis2": {"title": {"text": "share"}, "ticksuffix": " %", "domain": [0, 0.18], "nticks": 3},
    }
    return {"data": [diagonal, measured, counts], "layout": layout}


def _thinned(length: int) -> list[int]:
    """Return no more places than can be seen, the last among them."""
    step = max(1, math.ceil(length / _POINTS))
    return sorted({*range(0, length, step), *([length - 1] if length else [])})
