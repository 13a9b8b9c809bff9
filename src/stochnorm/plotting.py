"""The colors of all figures, and figures as PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stochnorm.files import atomic_path
from stochnorm.text import printable

if TYPE_CHECKING:  # the page needs the colors alone
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PALETTE", "color_numbers", "drawn", "palette_css", "save_figure", "tidy"]

PALETTE = (
    "#7b8694", "#0b6bcb", "#d9570a", "#0a8f68", "#a3459b", "#b58600", "#3fa2d9", "#8c2257", "#76771f", "#43389c",
)  # fmt: skip
"""Colors on white: first the grey of a reference, then those of everything that is compared with it."""

_AUTHOR = {".png": "Software", ".svg": "Creator"}  # so that a picture of ours is known again

GREY, BLUE, ORANGE = PALETTE[:3]


def color_numbers(names: Iterable[str], reference: str) -> dict[str, int]:
    """Return the place of each name's color in the palette, by order: 0 for the reference, then 1 to 9 in turn.

    Example:
        >>> color_numbers(["stochnorm", "vanilla", "bss"], "vanilla")
        {'stochnorm': 1, 'vanilla': 0, 'bss': 2}
    """
    hues = len(PALETTE) - 1
    others = [name for name in dict.fromkeys(names) if name != reference]
    return {name: 0 if name == reference else others.index(name) % hues + 1 for name in names}


def palette_css() -> str:
    """Return the palette as names of a style sheet: --s0 for the grey of a reference, then --s1 to --s9."""
    return f":root {{ {' '.join(f'--s{i}: {color};' for i, color in enumerate(PALETTE))} }}\n"


def drawn(name: str) -> str:
    """Return a name as a figure shows it: a letter that the font lacks by its number, a dollar sign as one.

    Example:
        >>> drawn("Grün, 5 $"), drawn("\u9ce5 (bird)")
        ('Grün, 5 \\\\$', 'U+9CE5 (bird)')
    """
    letters = (letter if ord(letter) in _glyphs() else f"U+{ord(letter):04X}" for letter in printable(name))
    return "".join(letters).replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    """Return the letters of the font of figures."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def save_figure(figure: Figure, path: Path) -> None:
    """Write path.png and path.svg, each atomically."""
    for suffix in (".png", ".svg"):
        with atomic_path(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=160, metadata={_AUTHOR[suffix]: "stochnorm"})


def tidy(axes: Axes) -> None:
    """Remove the box and draw a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb")
    axes.set_axisbelow(True)
