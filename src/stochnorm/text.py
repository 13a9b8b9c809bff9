"""Names, lists, counts, numbers, p-values and durations in words, for messages, tables and pages."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "DASH",
    "count",
    "decimals",
    "duration",
    "format_p",
    "interval",
    "printable",
    "rough_duration",
    "rounded",
    "signed",
    "size",
    "some",
    "spaced_p",
    "span",
    "tally",
]

DASH = "\N{EN DASH}"
"""Shown instead of a missing number."""

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # parts of words and of emoji


def printable(text: str, keep: str = "") -> str:
    """Write what a terminal would obey or hide as its escape: control characters, marks that turn the direction of
    writing, and what no encoding has. Spaces of any kind and the joiners of letters stay.

    Args:
        text: A name, or a message with names.
        keep: Control characters that stay, such as line breaks.

    Example:
        >>> print(printable("bad\\x1b]0;owned\\a.png"), printable("gpj\\u202e.exe"))
        bad\\x1b]0;owned\\x07.png gpj\\u202e.exe
    """
    if text.isprintable():
        return text
    return "".join(_escape(letter) if _hidden(letter) and letter not in keep else letter for letter in text)


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in _JOINERS


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def some(names: Sequence[str], most: int = 5) -> str:
    """List the first names, for a message, as [stochnorm.text.printable][] shows them.

    Example:
        >>> some(["a", "b"]), some(["a", "b", "c", "d"], 3)
        ('a, b', 'a, b, c and 1 more')
    """
    return ", ".join(map(printable, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def count(n: int, what: str) -> str:
    """Write a number of things, the word in singular or plural.

    Example:
        >>> count(1, "class"), count(2, "class"), count(1200, "run")
        ('1 class', '2 classes', '1,200 runs')
    """
    return f"{n:,} {what}" + ("" if n == 1 else "es" if what.endswith("s") else "s")


def tally(numbers: Mapping[str, int]) -> str:
    """List how many there are of each kind.

    Example:
        >>> tally({"images": 11788, "classes": 200})
        '11,788 images, 200 classes'
    """
    return ", ".join(f"{n:,} {what}" for what, n in numbers.items())


def span(numbers: Iterable[int]) -> str:
    """Write the smallest and the largest of several numbers, or the only one.

    Example:
        >>> span([5, 3, 4]), span({1500})
        ('3 to 5', '1,500')
    """
    low, *_, high = sorted([*numbers] * 2)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def interval(bounds: Sequence[float], form: str = ".1f") -> str:
    """Write the bounds of a confidence interval.

    Example:
        >>> interval((81.25, 90)), interval((-0.5, 1), "+.2f")
        ('81.2 to 90.0', '-0.50 to +1.00')
    """
    low, high = bounds
    return f"{low:{form}} to {high:{form}}"


def decimals(value: float | None, digits: int) -> str:
    """Write a number with this many decimals; a dash for None.

    Example:
        >>> decimals(1234.56, 1), decimals(None, 1) == DASH
        ('1,234.6', True)
    """
    return DASH if value is None else f"{value:,.{digits}f}"


def signed(value: float | None, digits: int) -> str:
    """Write a number with its sign and this many decimals; a dash for None.

    Example:
        >>> signed(1.25, 2), signed(None, 1) == DASH
        ('+1.25', True)
    """
    return DASH if value is None else f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def rounded(value: float, digits: int = 2) -> str:
    """Round to this many decimals; from 1000 on to two significant digits.

    Example:
        >>> rounded(2.345, 1), rounded(123456)
        ('2.3', '1.2e+05')
    """
    return f"{value:.{digits}f}" if value < 1000 else f"{value:.2g}"


def size(count: int) -> str:
    """Write a number of bytes, in units of a thousand.

    Example:
        >>> size(0), size(14_200_000), size(2_500_000_000)
        ('0 kB', '14 MB', '2.5 GB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}" if count < 10 * factor else f"{count / factor:.0f} {unit}"
    return f"{-(-count // 1000)} kB"


def format_p(p: float) -> str:
    """Write a p-value with three decimals.

    Example:
        >>> format_p(0.0742), format_p(0.0001)
        ('0.074', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def spaced_p(p: float | None) -> str:
    """Write a p-value as ``format_p``, with a space after "<"; a dash for None.

    Example:
        >>> spaced_p(0.0742), spaced_p(0.0001), spaced_p(None) == DASH
        ('0.074', '< 0.001', True)
    """
    return DASH if p is None else format_p(p).replace("<", "< ")


def duration(seconds: float | None) -> str:
    """Write how long something took; a dash for None.

    Example:
        >>> duration(42), duration(200), duration(9000), duration(None) == DASH
        ('42 s', '3.3 min', '2.5 h', True)
    """
    if seconds is None:
        return DASH
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def rough_duration(seconds: float) -> str:
    """Write about how long something will take: as ``duration``, but in whole minutes.

    Example:
        >>> rough_duration(42), rough_duration(200), rough_duration(9000)
        ('42 s', '3 min', '2.5 h')
    """
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
