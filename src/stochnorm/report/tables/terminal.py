"""A comparison in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stochnorm.report.statistics import Rank, friedman, ranks, significant
from stochnorm.report.tables.content import DIFFERENCES, ENTRY, MEANING, TIED, Results, collect, difference_rows
from stochnorm.report.tables.sentences import conclude, standing_in_words
from stochnorm.runs.records import Cell, Failure, Record
from stochnorm.text import count

__all__ = ["show_results"]

_WIDE = 100  # columns
_FOLD = 36  # characters of a label


def show_results(
    console: Console, records: Sequence[Record], failures: Sequence[Failure] = (), reference: str = "vanilla"
) -> None:
    """Show results, differences, ranks, failures and conclusions, in as many tables as the width requires.

    Args:
        console: Console to write to.
        records: Records of finished runs; may be empty.
        failures: Failed runs.
        reference: Label of the variant with which the others are compared.

    Raises:
        ValueError: As [stochnorm.report.statistics.summarize][].
    """
    results = collect(records, reference)
    for page in _pages(results, console.width):
        _say(console, f"\n{results.measure}, %{results.warning}", "bold")
        console.print(_results_table(results, page))
    if results.names:
        legend = f"; bold: the best; underlined: {TIED}" if results.compared else ""
        _say(console, " ".join([f"{ENTRY}{legend}.", *results.notes]), "dim")
    if results.differences:
        _say(console, f"\nDifferences to {reference}, points{results.warning}", "bold")
        console.print(_differences_table(results, console.width))
        _say(console, MEANING, "dim")
    if standing := ranks(records):
        _say(console, f"\nMean ranks{results.warning}", "bold")
        console.print(_ranks_table(standing))
        _say(console, standing_in_words(standing, friedman(records)), "dim")
    if failures:
        _say(console, f"\n{count(len(failures), 'run')} failed", "bold red")
        for f in failures:
            what = f"{f.data} {f.rate:g} %, {f.backbone}, {f.variant}, repetition {f.repeat}"
            _say(console, f"{what}: {' '.join(f.reason.split())} ({f.run})")
    console.print()
    for sentence in conclude(results, records):
        _say(console, sentence)


def _say(console: Console, text: str, style: str = "") -> None:
    """Print text whose brackets are not markup."""
    console.print(Text(text, style=style))


def _pages(results: Results, width: int) -> list[list[Cell]]:
    """Split the columns into as few tables as fit the width; a data set and backbone stay together if possible."""
    labels = max((min(len(variant), _FOLD) for variant in results.variants), default=0)
    lines = [line for _, line in results.lines()]
    widths = {
        cell: max(len(name), *(len(f"{line[i].value} {line[i].n}") for line in lines))
        for i, (cell, name) in enumerate(results.names.items())
    }

    def fits(cells: Sequence[Cell]) -> bool:
        return labels + 4 + sum(widths[cell] + 3 for cell in cells) <= width  # as rich pads and divides

    pages: list[list[Cell]] = []
    for _, group in groupby(results.names, key=lambda cell: (cell.data, cell.backbone)):
        together = list(group)
        for unit in [together] if fits(together) else [[cell] for cell in together]:
            if pages and fits(pages[-1] + unit):
                pages[-1] += unit
            else:
                pages.append(unit)
    return pages


def _results_table(results: Results, cells: Sequence[Cell]) -> Table:
    table = _table()
    for cell in cells:
        table.add_column(Text(results.names[cell]), justify="right", overflow="fold")
    styles = {"": "", "best": "bold", "tied": "underline"}
    columns = [list(results.names).index(cell) for cell in cells]
    for variant, line in results.lines():
        entries = [line[i] for i in columns]
        shown = [Text.assemble((e.value, styles[e.mark]), (f" {e.n}" if e.n else "", "dim")) for e in entries]
        table.add_row(Text(variant), *shown)
    return table


def _differences_table(results: Results, width: int) -> Table:
    """Return a section per cell, significant differences in bold. A narrow terminal shows only Holm's p-values."""
    table = _table()
    table.add_column("", max_width=_FOLD, overflow="fold")
    headings = [name for name in DIFFERENCES[2:] if width >= _WIDE or name not in ("p (t)", "p (permutation)")]
    for heading in headings:
        table.add_column(heading.replace("permutation", "perm."), justify="right", no_wrap=True)
    previous: Cell | None = None
    for d, (cell, variant, *numbers) in zip(results.differences, difference_rows(results), strict=True):
        if previous not in (None, d.cell):
            table.add_section()
        style = "bold" if significant(d) else ""
        shown = [Text(n, style) for name, n in zip(DIFFERENCES[2:], numbers, strict=True) if name in headings]
        table.add_row(Text("" if d.cell == previous else cell), Text(variant), *shown)
        previous = d.cell
    return table


def _ranks_table(standing: Sequence[Rank]) -> Table:
    table = _table()
    table.add_column("mean rank", justify="right")
    for rank in standing:
        table.add_row(Text(rank.variant), f"{rank.mean:.2f}")
    return table


def _table() -> Table:
    """Return a table with a column of names."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    table.add_column("", max_width=_FOLD, overflow="fold")
    return table
