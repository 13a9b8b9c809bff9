"""What is wrong with single images."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from stochnorm.data.inspection.findings import Finding
from stochnorm.data.inspection.look import Look
from stochnorm.data.manifest import Row

__all__ = ["odd_images"]

_VISIBLE = 0.02  # share of an image that its transparency leaves, below which it is hidden
_BLANK = 3.0  # deviation of grey, of 255
_DARK = 64.0  # grey value, of 255
_SOFT = 0.55  # sharpness relative to the median, below which an image is blurred
_TINY = 32  # pixels
_SMALL = 1 / 4  # shorter side relative to the median
_LONG = 2.0  # elongation relative to the median


def odd_images(rows: Sequence[Row], looks: Sequence[Look | str]) -> list[Finding]:
    """Return what is wrong with each image by itself, or by comparison with the median of all.

    Args:
        rows: n images.
        looks: What was seen of each, or why it cannot be read.
    """
    seen = [look for look in looks if isinstance(look, Look)]
    if not seen:
        return [Finding("unreadable", str(look), row) for row, look in zip(rows, looks, strict=True)]
    side = statistics.median(min(look.width, look.height) for look in seen)
    shape = statistics.median(map(_elongation, seen))
    sharpness = statistics.median(look.sharpness for look in seen)
    return [
        Finding(kind, value, row)
        for row, look in zip(rows, looks, strict=True)
        for kind, value in _odd(look, side, shape, sharpness)
    ]


def _odd(look: Look | str, side: float, shape: float, sharpness: float) -> Iterator[tuple[str, str]]:
    if isinstance(look, str):
        yield "unreadable", look
        return
    if look.opacity < _VISIBLE:
        yield "hidden", f"{100 * look.opacity:.0f} % visible"
    elif look.contrast < _BLANK:
        yield "blank", f"grey varies by {look.contrast:.1f} of 255"
    elif look.light < _DARK:
        yield "dark", f"99 % of the pixels below {look.light:.0f} of 255"
    elif look.sharpness < _SOFT * sharpness:
        yield "blurred", f"sharpness {look.sharpness:.2f}, median {sharpness:.2f}"
    if min(look.width, look.height) < max(min(_TINY, side / 2), _SMALL * side):
        yield "odd-size", f"{look.width} x {look.height} pixels, median of the shorter side {side:.0f}"
    if _elongation(look) > _LONG * shape:
        yield "odd-shape", f"{look.width} x {look.height} pixels, {_elongation(look):.1f} to 1, median {shape:.1f}"


def _elongation(look: Look) -> float:
    return max(look.width, look.height) / max(min(look.width, look.height), 1)
