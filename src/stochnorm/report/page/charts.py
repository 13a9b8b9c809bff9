"""The common parts of the charts: Plotly figures as plain data, looks of variants, labels.

Colors are names of the style sheet, such as ``var(--s1)``, which the page's script resolves for light, dark and paper.
Plotly takes text for markup; text from a file passes through [stochnorm.report.page.charts.plain][]. Numbers that are
not finite are gaps.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stochnorm.plotting import PALETTE, color_numbers
from stochnorm.text import interval

__all__ = [
    "CHARACTER",
    "Figure",
    "Style",
    "bounds_text",
    "error_bars",
    "finite",
    "plain",
    "rows_layout",
    "shorten",
    "styles",
    "trace",
]

CHARACTER = 6.4
"""Width of a character of an axis's label, in pixels; Plotly's automatic margins do not settle on narrow screens."""

Figure = dict[str, Any]
"""A figure of Plotly; for the page's script also ``confusion``, and ``squat``: low on paper."""

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "star", "cross", "x")


@dataclass(frozen=True)
class Style:
    """The look of a variant in every chart."""

    color: str
    symbol: str
    dash: str = "solid"


def styles(variants: Sequence[str], reference: str) -> dict[str, Style]:
    """Return the look of each variant, by order: grey and dashed for the reference, a color and a symbol for others."""
    colors = color_numbers(variants, reference)
    others = {name: i for i, name in enumerate(name for name in variants if name != reference)}
    return {
        name: Style(
            f"var(--s{colors[name]})",
            _SYMBOLS[others.get(name, 0) % len(_SYMBOLS)],
            "dash" if name == reference else "solid" if others[name] < len(PALETTE) - 1 else "dot",
        )
        for name in variants
    }


def plain(text: str) -> str:
    """Escape text so that Plotly shows it unchanged.

    Example:
        >>> plain("<b>R&D</b>")
        '&lt;b&gt;R&amp;D&lt;/b&gt;'
    """
    return html.escape(text, quote=False)


def shorten(text: str, length: int = 22) -> str:
    """Shorten a label to its beginning and its end.

    Example:
        >>> shorten("001.Black_footed_Albatross", 15)
        '001.Bla…batross'
    """
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def trace(name: str, style: Style) -> Figure:
    """Return the properties that all traces of a variant share; the page's legend finds them by ``meta``."""
    return {
        "type": "scatter",
        "name": plain(name),
        "meta": {"variant": name},
        "line": {"color": style.color, "width": 2, "dash": style.dash},
        "marker": {"color": style.color, "symbol": style.symbol, "size": 8},
    }


def error_bars(style: Style, above: Sequence[float], below: Sequence[float] | None = None) -> Figure:
    bars: Figure = {"type": "data", "array": list(above), "color": style.color, "thickness": 1.3, "width": 0}
    return bars if below is None else bars | {"symmetric": False, "arrayminus": list(below)}


def rows_layout(names: Sequence[str]) -> Figure:
    """Return a layout with a row per name, the first on top."""
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
        "margin": {"l": 18 + CHARACTER * length, "r": 24, "t": 8, "b": 10},
    }


def bounds_text(bounds: tuple[float, float] | None) -> str:
    return f" ({interval(bounds)})" if bounds else ""


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
