"""CSV text whose cells no spreadsheet runs as formulas, and the names in it as they were."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

__all__ = ["format_csv", "plain"]

_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last four are the first four in full width
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def format_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Format rows as CSV. An apostrophe is put before a text that a spreadsheet would run, such as `=cmd|calc!A1`.

    Numbers stay as they are, also those that are written with a sign. [stochnorm.spreadsheet.plain][] takes the
    apostrophe away again.

    Example:
        >>> print(format_csv([["=1+1", "-0.5", -0.5, "red", None]]).strip())
        '=1+1,-0.5,-0.5,red,
    """
    text = io.StringIO()
    writer, quoting = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        cells = [_harmless(value) for value in row]
        broken = any(isinstance(cell, str) and "\r" in cell for cell in cells)  # which not every Python quotes
        (quoting if broken else writer).writerow(cells)
    return text.getvalue()


def plain(cell: str) -> str:
    """Return a text as it was before `format_csv`.

    Example:
        >>> plain("'=1+1"), plain("'' = '"), plain("red")
        ('=1+1', "'' = '", 'red')
    """
    return cell[1:] if cell[:1] == "'" and _runs(cell) else cell


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _runs(value) and not _NUMBER.fullmatch(value) else value


def _runs(text: str) -> bool:
    """Return whether a text begins as a formula, after apostrophes or none."""
    first = text[:1]
    return first != "" and (first in _STARTS or (first == "'" and text.lstrip("'")[:1] in (*_STARTS,)))
