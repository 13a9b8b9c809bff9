"""The charts: valid for Plotly, with the numbers they were given, and text that stays text."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go
import pytest

from stochnorm.report.page.analysis import ClassScore
from stochnorm.report.page.charts import Style, styles
from stochnorm.report.page.comparison_charts import accuracy_figure, gain_figure
from stochnorm.report.page.run_charts import calibration_figure, class_figure, confusion_figure, curve_figure
from stochnorm.report.statistics import Difference, Summary
from stochnorm.runs.calibration import Bin
from stochnorm.runs.records import Cell

NAMES = ["vanilla", "stochnorm", "<b>bss</b>"]
STYLE = styles(NAMES, "vanilla")


def summaries(*rates: float) -> list[Summary]:
    return [
        Summary(Cell("photos", "net", rate), name, 2, 50 + rate / 10 + i, 1.5, {(0, 0): 49.0, (1, 1): 51.0}, "top1")
        for rate in rates
        for i, name in enumerate(NAMES)
    ]


def gains(*rates: float) -> list[Difference]:
    return [
        Difference(Cell("photos", "net", rate), name, "vanilla", 5, i - 0.5, (i - 1.0, i + 0.5), 0.01, 0.06, 0.04 * i)
        for rate in rates
        for i, name in enumerate(NAMES[1:], start=1)
    ]


def resolved(value: Any) -> Any:
    """With a color in place of the style sheet's names, as the page's script does."""
    if isinstance(value, dict):
        return {name: resolved(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [resolved(inner) for inner in value]
    return "#123456" if isinstance(value, str) and value.startswith("var(--") else value


FIGURES = {
    "accuracy by rate": accuracy_figure(summaries(15, 30, 100), STYLE),
    "accuracy of one rate": accuracy_figure(summaries(15), STYLE),
    "gain by rate": gain_figure(gains(15, 30, 100), STYLE),
    "gain of one rate": gain_figure(gains(15), STYLE),
    "curves": curve_figure({"a": ([1, 2], [0.5, None], Style("var(--s1)", "circle"))}, selected=2, percent=True),
    "classes": class_figure([ClassScore("<i>a", 50.0, (40.0, 60.0), 10), ClassScore("b", None, None, 0)]),
    "many classes": class_figure([ClassScore(f"{i}", float(i), (0.0, 50.0), 10) for i in range(40)]),
    "confusion": confusion_figure({(0, 0): 3, (0, 1): 1}, ["a<b", "c"]),
    "calibration": calibration_figure([Bin(0.3, 0.2, 10), Bin(0.95, 1.0, 1)]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_plotly_knows_every_property(name: str) -> None:
    figure = FIGURES[name]
    go.Figure(resolved({"data": figure["data"], "layout": figure["layout"]}))


def test_means_and_deviations_are_drawn_at_their_rates() -> None:
    traces = {t["meta"]["variant"]: t for t in FIGURES["accuracy by rate"]["data"]}
    assert traces["stochnorm"]["y"] == [52.5, 54.0, 61.0]
    assert traces["stochnorm"]["error_y"]["array"] == [1.5, 1.5, 1.5]
    for trace in traces.values():
        assert trace["x"] == pytest.approx([15, 30, 100], rel=0.2)  # side by side
        low, high = FIGURES["accuracy by rate"]["layout"]["xaxis"]["range"]
        assert all(low < math.log10(x) < high for x in trace["x"])


def test_each_repeat_of_a_single_rate_is_a_dot() -> None:
    dots = [t for t in FIGURES["accuracy of one rate"]["data"] if t["x"] == [49.0, 51.0]]
    assert len(dots) == len(NAMES)


def test_gains_are_filled_where_they_are_significant_and_their_intervals_end_where_they_should() -> None:
    first, second = FIGURES["gain by rate"]["data"]
    assert first["marker"]["symbol"] == ["circle"] * 3  # p 0.04
    assert second["marker"]["symbol"] == ["square-open"] * 3  # p 0.08
    assert [y + e for y, e in zip(first["y"], first["error_y"]["array"], strict=True)] == [1.5] * 3
    assert [y - e for y, e in zip(first["y"], first["error_y"]["arrayminus"], strict=True)] == [0.0] * 3


def test_two_repeats_are_never_called_significant() -> None:
    few = [Difference(Cell("photos", "net", 15), "stochnorm", "vanilla", 2, 1.0, (0.5, 1.5), 0.01, 0.5, 0.01)]
    assert gain_figure(few, STYLE)["data"][0]["marker"]["symbol"] == ["circle-open"]


def test_a_name_is_never_markup() -> None:
    for name in ("accuracy by rate", "gain by rate", "classes", "confusion"):
        figure = FIGURES[name]
        shown = str([{k: v for k, v in trace.items() if k != "meta"} for trace in figure["data"]])  # meta is not shown
        shown += str(figure["layout"]) + str(figure.get("confusion"))
        assert not any(text in shown for text in ("<b>bss", "<i>a", "a<b"))
        assert "&lt;" in shown


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    steps = list(range(10_000))
    figure = curve_figure({"a": (steps, [float(s) for s in steps], Style("var(--s1)", "circle"))})
    assert len(figure["data"][0]["x"]) <= 202
    assert figure["data"][0]["x"][-1] == 9_999


def test_what_is_not_finite_is_a_gap() -> None:
    figure = curve_figure({"a": ([1, 2, 3], [math.nan, math.inf, 1.0], Style("var(--s1)", "circle"))})
    assert figure["data"][0]["y"] == [None, None, 1.0]


def test_variants_keep_a_look_of_their_own() -> None:
    many = styles([f"method {i}" for i in range(18)], "method 0")
    assert many["method 0"].color == "var(--s0)"
    looks = [(s.color, s.symbol, s.dash) for s in many.values()]
    assert len(set(looks)) == len(looks)
