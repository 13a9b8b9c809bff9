"""The charts of a comparison: scores and gains."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from stochnorm.report.page.charts import Figure, Style, bounds_text, error_bars, plain, rows_layout, trace
from stochnorm.report.statistics import Difference, Summary, significant
from stochnorm.text import count

__all__ = ["accuracy_figure", "gain_figure"]


def accuracy_figure(summaries: Sequence[Summary], style: Mapping[str, Style]) -> Figure:
    """Draw the mean test score against the sampling rate, with the standard deviation over the repeats.

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
                **trace(variant, style[variant]),
                "mode": "lines+markers",
                "x": [s.cell.rate * 10**shift for s in points],
                "y": [s.mean for s in points],
                "error_y": error_bars(style[variant], [s.std or 0 for s in points]),
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
            **trace(s.variant, style[s.variant]),
            "mode": "markers",
            "x": values,
            "y": [place] * len(values),
            "opacity": 0.45,
            "hovertemplate": "one run: %{x:.1f} %<extra></extra>",
        }
        repeats["marker"] = {"size": 6, "symbol": "circle-open", "color": style[s.variant].color}
        mean = {
            **trace(s.variant, style[s.variant]),
            "mode": "markers",
            "x": [s.mean],
            "y": [place],
            "error_x": error_bars(style[s.variant], [s.std or 0]),
            "text": [_score_text(s)],
            "hovertemplate": "%{text}<extra></extra>",
        }
        data += [repeats, mean] if len(values) > 1 else [mean]
    return {"data": data, "layout": rows_layout([s.variant for s in rows]) | {"xaxis": {"ticksuffix": " %"}}}


def gain_figure(differences: Sequence[Difference], style: Mapping[str, Style]) -> Figure:
    """Draw the gain over the reference with its 95 % interval; filled if it is significant.

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
                **trace(variant, style[variant]),
                "mode": "markers",
                value: [d.mean for d in points],
                other: [rates.index(d.cell.rate) + shift if upright else number for d in points],
                f"error_{value}": error_bars(
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
        return {"data": data, "layout": rows_layout(variants) | {"xaxis": {"zeroline": False}, "shapes": shapes}}
    band = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}, "layer": "below"}
    shapes += [band | {"x0": i - 0.5, "x1": i + 0.5, "fillcolor": "var(--band)"} for i in range(0, len(rates), 2)]
    ticks = {"tickvals": list(range(len(rates))), "ticktext": [f"{r:g} %" for r in rates]}
    axis = ticks | {"range": [-0.5, len(rates) - 0.5], "showgrid": False, "zeroline": False}
    layout = {"height": 380, "xaxis": axis, "yaxis": {"zeroline": False}, "shapes": shapes}
    return {"data": data, "layout": layout, "squat": True}


def _variants(items: Sequence[Summary] | Sequence[Difference]) -> list[str]:
    return list(dict.fromkeys(item.variant for item in items))


def _dodge(count: int, width: float) -> list[float]:
    """Return places side by side, around 0."""
    return [width * (2 * i / (count - 1) - 1) if count > 1 else 0.0 for i in range(count)]


def _score_text(s: Summary) -> str:
    spread = f" ± {s.std:.1f}" if s.std is not None else ""
    return f"<b>{plain(s.variant)}</b> at {s.cell.rate:g} %<br>{s.mean:.1f}{spread} %, {count(s.n, 'run')}"


def _gain_text(d: Difference) -> str:
    p = f", p = {d.p_holm:.2g}" if d.p_holm is not None else ""
    return f"<b>{plain(d.variant)}</b> at {d.cell.rate:g} %<br>{d.mean:+.1f} points{bounds_text(d.interval)}{p}"
