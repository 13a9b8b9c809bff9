"""The terminal: a console of Rich on which no name can move the cursor, change the title or hide itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from stochnorm.text import printable

__all__ = ["LAYOUT", "Terminal"]

LAYOUT = "\n\t"
"""Control characters that lay out a text."""


class Terminal(Console):
    """A console that shows control characters in text as escapes, see [stochnorm.text.printable][].

    Everything that stochnorm prints goes through one. Colors and the movements of progress bars are Rich's own and
    stay.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"highlight": False} | settings)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of a string, such as a cell of a table, whose width is then that of what is shown."""
        return super().render_str(printable(text, LAYOUT), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of anything that can be printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, LAYOUT))
