"""The figure of a comparison: the runs and means of the records, in the colors of the page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stochnorm import Record
from stochnorm.plotting import PALETTE
from stochnorm.report.page.charts import styles
from stochnorm.report.plot import draw_comparison


def test_at_one_rate_a_row_has_its_runs_and_their_mean(build_records: Callable[..., list[Record]]) -> None:
    records = build_records({"vanilla": [50.0, 52.0], "stochnorm": [53.0, 57.0]})
    (axes,) = draw_comparison(records).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["vanilla", "stochnorm"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first is on top"
    reference, *drawn = [(list(map(float, line.get_xdata())), list(line.get_ydata())) for line in axes.get_lines()]
    assert reference[0] == [51.0, 51.0]
    assert drawn == [([50.0, 52.0], [0, 0]), ([51.0], [0]), ([53.0, 57.0], [1, 1]), ([55.0], [1])]
    assert "n = 2" in axes.get_xlabel()


def test_title_and_axis_fit_beside_long_names(build_records: Callable[..., list[Record]]) -> None:
    records = build_records({"vanilla": [50.0, 52.0], "stochnorm:norm_momentum=0:p=0.1:head=probe": [53.0, 57.0]})
    figure = draw_comparison(records)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    for text in (axes.title, axes._left_title, axes.xaxis.label, *axes.get_yticklabels()):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1


def test_over_rates_a_line_has_means_with_standard_deviations(build_records: Callable[..., list[Record]]) -> None:
    records = [
        record
        for rate, scores in ((100.0, [70.0, 72.0]), (15.0, [50.0, 54.0]))
        for record in build_records({"vanilla": scores}, rate=rate)
    ]
    (axes,) = draw_comparison(records).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["15 %", "100 %"]
    ((line, _, (bars,)),) = axes.containers
    assert list(line.get_ydata()) == [52.0, 71.0]
    low, high = bars.get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(8**0.5)


def test_small_scale_is_said(build_records: Callable[..., list[Record]]) -> None:
    figure = draw_comparison(build_records({"vanilla": [50.0]}, scale="small"))
    assert "small scale: no result" in figure.axes[0].get_title(loc="left")


def test_runs_without_a_test_score_are_left_out(build_records: Callable[..., list[Record]]) -> None:
    assert not draw_comparison(build_records({"vanilla": [None]})).axes


@pytest.mark.parametrize("rates", [(15.0,), (15.0, 50.0)])
def test_a_variant_has_the_color_that_it_has_on_the_page(
    rates: tuple[float, ...], build_records: Callable[..., list[Record]]
) -> None:
    """Colors go by place, not by name; a variant without a score keeps its place."""
    scores = {"a": [50.0, 52.0], "failed": [None, None], "b": [53.0, 57.0], "stochnorm": [51.0, 51.0]}
    records = [record for rate in rates for record in build_records(scores, rate=rate)]
    (axes,) = draw_comparison(records, reference="b").axes
    drawn = list(dict.fromkeys(line.get_color() for line in axes.get_lines()))
    number = {
        name: int(style.color.removeprefix("var(--s").rstrip(")")) for name, style in styles(list(scores), "b").items()
    }
    assert number == {"a": 1, "failed": 2, "b": 0, "stochnorm": 3}
    assert set(drawn) == {PALETTE[number[name]] for name in ("a", "b", "stochnorm")}
