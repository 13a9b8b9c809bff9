"""A comparison as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from stochnorm.report.statistics import friedman, ranks
from stochnorm.report.tables.content import DIFFERENCES, ENTRY, MEANING, TIED, collect, difference_rows
from stochnorm.report.tables.sentences import conclude, standing_in_words
from stochnorm.runs.records import Record

__all__ = ["format_markdown"]

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")


def format_markdown(records: Sequence[Record], reference: str = "vanilla") -> str:
    """Return results, differences, ranks and conclusions; the best is bold, a dagger marks those tied with it."""
    results = collect(records, reference)
    marks = {"": "{}", "best": "**{}**", "tied": "{}†"}

    def escape(text: str) -> str:
        return _SPECIAL.sub(r"\\\1", text.replace("\n", " "))

    def table(header: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
        lines = [list(header), *map(list, rows)]
        lines.insert(1, [":---"] * left + ["---:"] * (len(lines[0]) - left))
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    text = f"# Results{results.warning}\n\n"
    if results.names:
        rows = ([escape(name), *(e.marked(marks, escape) for e in row)] for name, row in results.lines())
        legend = f" Bold: the best mean; †: {TIED}." if results.compared else ""
        text += table(["", *map(escape, results.names.values())], rows)
        text += "\n" + " ".join([f"{results.measure}, percent: {ENTRY}.{legend}", *results.notes]) + "\n\n"
    if results.differences:
        text += f"## Differences to {escape(reference)}, points{results.warning}\n\n"
        text += table(DIFFERENCES, (map(escape, row) for row in difference_rows(results)), left=2)
        text += f"\n{MEANING}\n\n"
    if standing := ranks(records):
        text += f"## Mean ranks{results.warning}\n\n"
        text += table(("variant", "mean rank"), ((escape(rank.variant), f"{rank.mean:.2f}") for rank in standing))
        text += f"\n{standing_in_words(standing, friedman(records))}\n\n"
    return text + "".join(f"- {escape(sentence)}\n" for sentence in conclude(results, records))
