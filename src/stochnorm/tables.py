"""What a comparison came to, as Markdown, LaTeX, CSV and in the terminal; docs/statistics.md says how to read it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stochnorm.comparison import (
    LEVEL,
    Difference,
    Rank,
    Summary,
    differences,
    friedman,
    ranks,
    summarize,
    tied_with_best,
)
from stochnorm.files import write_text
from stochnorm.records import Cell, Record

if TYPE_CHECKING:
    from stochnorm.sweep import Failure

__all__ = [
    "conclusions",
    "format_differences_csv",
    "format_latex",
    "format_markdown",
    "format_results_csv",
    "show_results",
    "write_tables",
]

_FEW = 3  # pairs; with fewer nothing is concluded
_FOLD = 36  # characters of a label in the terminal
_SCORES = {"top1": "top-1 accuracy", "mean_auc": "mean AUC"}
_DIFFERENCES = ("data", "variant", "difference", "95 % interval", "p (t)", "p (permutation)", "p (Holm)", "n")
_UNDONE = "No run is finished."
_TIED = "not significantly worse than it (paired t-test over common seeds, Holm, 5 %)"
_MEANING = (
    "Paired over common seeds; interval and p (t) by Student's t; Holm's correction is for the variants of one data "
    "set, backbone and rate; p (permutation) is at least 2 / 2^n."
)

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&$])")
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "_%&#${}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # at the start of a row it would be an option of the line break before it
        "*": "{*}",
        "±": r"$\pm$",
        "\n": " ",
    }
)


def write_tables(records: Sequence[Record], out: Path, reference: str = "vanilla") -> list[Path]:
    """Writes ``results.md``, ``results.tex`` (for booktabs), ``results.csv`` and ``differences.csv``.

    Args:
        records: Of finished runs; may be none.
        out: A folder that exists.
        reference: Label of the variant that the others are compared with.

    Returns:
        The files.

    Raises:
        ValueError: As :func:`stochnorm.comparison.summarize`.
    """
    texts = {
        "results.md": format_markdown(records, reference),
        "results.tex": format_latex(records, reference),
        "results.csv": format_results_csv(records),
        "differences.csv": format_differences_csv(records, reference),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def format_markdown(records: Sequence[Record], reference: str = "vanilla") -> str:
    """Results, differences, ranks and conclusions; the best in bold, what is tied with it with a dagger."""
    results, warning = _results(records, reference), _warning(records)
    marks = {"": "{}", "best": "**{}**", "tied": "{}†"}

    def escape(text: str) -> str:
        return _MARKDOWN.sub(r"\\\1", text.replace("\n", " "))

    def table(header: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
        lines = [list(header), *map(list, rows)]
        lines.insert(1, [":---"] * left + ["---:"] * (len(lines[0]) - left))
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    text = f"# Results{warning}\n\n"
    if results.names:
        rows = ([escape(name), *(e.marked(marks, escape) for e in row)] for name, row in results.rows())
        legend = f" Bold: the best mean; †: {_TIED}." if results.compared else ""
        text += table(["", *map(escape, results.names.values())], rows)
        text += "\n" + " ".join([f"{results.measure}, percent: {_ENTRY}.{legend}", *results.notes]) + "\n\n"
    if results.differences:
        text += f"## Differences to {escape(reference)}, points{warning}\n\n"
        text += table(_DIFFERENCES, (map(escape, row) for row in _difference_rows(results)), left=2)
        text += f"\n{_MEANING}\n\n"
    if standing := ranks(records):
        text += f"## Mean ranks{warning}\n\n"
        text += table(("variant", "mean rank"), ((escape(rank.variant), f"{rank.mean:.2f}") for rank in standing))
        text += f"\n{_blocks(standing, friedman(records))}\n\n"
    return text + "".join(f"- {escape(sentence)}\n" for sentence in _conclusions(results, records))


def format_latex(records: Sequence[Record], reference: str = "vanilla") -> str:
    """Results and differences as tables for booktabs; the best in bold, what is tied with it underlined."""
    results, warning = _results(records, reference), _warning(records)
    marks = {"": "{}", "best": r"\textbf{{{}}}", "tied": r"\underline{{{}}}"}

    def escape(text: str) -> str:
        return text.translate(_LATEX)

    def table(caption: str, header: Sequence[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
        head, *body = (" & ".join(line) + r" \\" for line in [list(map(escape, header)), *map(list, rows)])
        columns = "l" * left + "r" * (len(header) - left)
        lines = (r"\toprule", head, r"\midrule", *body, r"\bottomrule")
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{escape(caption)}}}",
                rf"\begin{{tabular}}{{{columns}}}",
                *lines,
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    if not results.names:
        return f"% {_UNDONE}\n"
    legend = f" Bold: the best mean; underlined: {_TIED}." if results.compared else ""
    caption = " ".join([f"{results.measure}{warning}, percent: {_ENTRY}.{legend}", *results.notes])
    rows = ([escape(name), *(e.marked(marks, escape) for e in row)] for name, row in results.rows())
    text = table(caption, ["", *results.names.values()], rows)
    if results.differences:
        caption = f"Differences to {reference}{warning}, points. {_MEANING}"
        text += "\n" + table(caption, _DIFFERENCES, (map(escape, row) for row in _difference_rows(results)), 2)
    return text


def format_results_csv(records: Sequence[Record]) -> str:
    """A line per cell and variant; mean and std in percent, empty where there is none."""
    header = ("data", "backbone", "rate", "variant", "score", "n", "mean", "std", "scale")
    rows = ((*s.cell, s.variant, s.score, s.n, s.mean, s.std, _scale(records)) for s in summarize(records))
    return _csv(header, rows)


def format_differences_csv(records: Sequence[Record], reference: str = "vanilla") -> str:
    """A line per cell and variant but the reference; difference, low and high in points of percent."""
    header = (
        "data", "backbone", "rate", "variant", "reference", "n", "difference", "low", "high", "p_t", "p_permutation",
        "p_holm", "scale",
    )  # fmt: skip
    rows = (
        (*d.cell, d.variant, d.reference, d.n, d.mean, *(d.interval or (None, None)), d.p_value, d.p_permutation,
         d.p_holm, _scale(records))
        for d in differences(records, reference)
    )  # fmt: skip
    return _csv(header, rows)


def conclusions(records: Sequence[Record], reference: str = "vanilla") -> list[str]:
    """What the differences to the reference show and what they do not, in sentences.

    Example:
        >>> conclusions([])
        ['No run is finished.']
    """
    return _conclusions(_results(records, reference), records)


def _conclusions(results: _Results, records: Sequence[Record]) -> list[str]:
    found, reference = results.differences, results.reference
    if not records:
        return [_UNDONE]
    if all(record.scale for record in records):
        return [f"These runs are {_scale(records)} scale: they show that the comparison works, and no result."]
    if not any(summary.n for summary in results.summaries):
        return ["No run has a test score, so nothing is compared."]
    if len(results.variants) < 2:
        return ["There is one variant, so nothing is compared."]
    if reference not in results.variants:
        return [f"There is no run of {reference}, so there are no differences to it; name another reference."]
    enough = [d for d in found if d.n >= _FEW]
    shown = [d for d in enough if _significant(d)]
    sentences = [_sentence(d, results) for d in shown]
    if len(enough) > len(shown):
        sentences.append(
            f"Not significant at 5 % after Holm: {len(enough) - len(shown)} of {_count(len(enough), 'difference')} to "
            f"{reference} (n of {_FEW} or more). That shows neither a difference nor that there is none."
        )
    if few := [d for d in found if d.n < _FEW]:
        counts = " or ".join(str(n) for n in sorted({d.n for d in few}))
        sentences.append(
            f"Nothing can be concluded from n = {counts}: {_count(len(few), 'difference')} to {reference}. Repeat with "
            f"{_FEW} seeds at least, better 5 or more."
        )
    compared = {(d.cell, d.variant) for d in found}
    sentences += [
        f"{results.names[s.cell]}: {s.variant} and {reference} have no repetition (data_seed and seed) in common, so "
        "they are not compared."
        for s in results.summaries
        if s.n and s.variant != reference and (s.cell, s.variant) not in compared
    ]
    return sentences


def show_results(
    console: Console, records: Sequence[Record], failures: Sequence[Failure] = (), reference: str = "vanilla"
) -> None:
    """Results, differences, ranks, failures and conclusions, in as many tables as the width asks for.

    Args:
        console: Where to.
        records: Of finished runs; may be none.
        failures: Runs that came to nothing.
        reference: Label of the variant that the others are compared with.

    Raises:
        ValueError: As :func:`stochnorm.comparison.summarize`.
    """
    results, warning = _results(records, reference), _warning(records)
    for page in _pages(results, console.width):
        _say(console, f"\n{results.measure}, %{warning}", "bold")
        console.print(_results_table(results, page))
    if results.names:
        legend = f"; bold: the best; underlined: {_TIED}" if results.compared else ""
        _say(console, " ".join([f"{_ENTRY}{legend}.", *results.notes]), "dim")
    if results.differences:
        _say(console, f"\nDifferences to {reference}, points{warning}", "bold")
        console.print(_differences_table(results))
        _say(console, _MEANING, "dim")
    if standing := ranks(records):
        _say(console, f"\nMean ranks{warning}", "bold")
        console.print(_ranks_table(standing))
        _say(console, _blocks(standing, friedman(records)), "dim")
    if failures:
        _say(console, f"\n{_count(len(failures), 'run')} failed", "bold red")
        for f in failures:
            what = f"{f.data} {f.rate:g} %, {f.backbone}, {f.variant}, repetition {f.repeat}"
            _say(console, f"{what}: {' '.join(f.reason.split())} ({f.run})")
    console.print()
    for sentence in _conclusions(results, records):
        _say(console, sentence)


_ENTRY = "mean ± standard deviation (n runs)"
_Mark = Literal["", "best", "tied"]


class _Entry(NamedTuple):
    """One variant in one cell."""

    value: str = "-"
    """Mean and standard deviation."""
    n: str = ""
    mark: _Mark = ""

    def marked(self, marks: dict[str, str], escape: Any) -> str:
        return f"{marks[self.mark].format(escape(self.value))} {self.n}".rstrip()


class _Results(NamedTuple):
    """A table of results: cells are columns, variants are rows."""

    measure: str
    """What the numbers are."""
    names: dict[Cell, str]
    """Of the columns, in order."""
    variants: list[str]
    """The reference first, others as they came."""
    entries: dict[tuple[str, Cell], _Entry]
    summaries: list[Summary]
    reference: str
    differences: list[Difference]
    """In the order of columns and rows."""

    @property
    def compared(self) -> bool:
        """Whether there is a best among several."""
        return any(entry.mark for entry in self.entries.values())

    @property
    def notes(self) -> list[str]:
        """What else is to know to read the numbers."""
        counts = [{s.n for s in self.summaries if s.cell == cell and s.n} for cell in self.names]
        notes = []
        if any(1 in found for found in counts):
            notes.append("n = 1: no spread and no test, so what is tied with the best is not known.")
        if any(len(found) > 1 for found in counts):
            notes.append("Where n differs, means are over other repetitions: read the paired differences.")
        if any(entry.value == "-" for _, row in self.rows() for entry in row):
            notes.append("-: no run, or no test score.")
        return notes

    def rows(self) -> Iterator[tuple[str, list[_Entry]]]:
        for variant in self.variants:
            yield variant, [self.entry(variant, cell) for cell in self.names]

    def entry(self, variant: str, cell: Cell) -> _Entry:
        return self.entries.get((variant, cell), _Entry())


def _results(records: Sequence[Record], reference: str) -> _Results:
    summaries = summarize(records)
    variants = sorted(dict.fromkeys(s.variant for s in summaries), key=lambda variant: variant != reference)
    scores = {s.cell: _SCORES.get(s.score, s.score) for s in summaries}
    one = len(set(scores.values())) == 1
    tied = tied_with_best(records)
    means: dict[Cell, list[float]] = {cell: [] for cell in scores}
    for s in summaries:
        means[s.cell] += [] if s.mean is None else [s.mean]
    entries = {}
    for s in summaries:
        mark: _Mark = ""
        if len(means[s.cell]) > 1 and s.variant in tied[s.cell]:
            mark = "best" if s.mean == max(means[s.cell]) else "tied"
        if s.mean is not None:
            spread = "" if s.std is None else f" ± {s.std:.2f}"
            entries[s.variant, s.cell] = _Entry(f"{s.mean:.2f}{spread}", f"({s.n})", mark)
    measure = f"Test {next(iter(scores.values()))}" if one else "Test score"
    names = _names(scores, scored=not one)
    order = [(cell, variant) for cell in names for variant in variants]
    found = sorted(differences(records, reference), key=lambda d: order.index((d.cell, d.variant)))
    return _Results(measure, names, variants, entries, summaries, reference, found)


def _names(scores: dict[Cell, str], *, scored: bool) -> dict[Cell, str]:
    """Of cells, in the order of columns: data sets and backbones as they came, rates from low to high."""
    data = list(dict.fromkeys(cell.data for cell in scores))
    backbones = list(dict.fromkeys(cell.backbone for cell in scores))
    return {
        cell: f"{cell.data} {cell.rate:g} %"
        + (f", {cell.backbone}" if len(backbones) > 1 else "")
        + (f", {scores[cell]}" if scored else "")
        for cell in sorted(scores, key=lambda c: (data.index(c.data), backbones.index(c.backbone), c.rate))
    }


def _difference_rows(results: _Results) -> list[list[str]]:
    """The columns of _DIFFERENCES."""
    return [
        [
            results.names[d.cell],
            d.variant,
            f"{d.mean:+.2f}",
            "-" if d.interval is None else f"{d.interval[0]:+.2f} to {d.interval[1]:+.2f}",
            *("-" if p is None else _p(p) for p in (d.p_value, d.p_permutation, d.p_holm)),
            str(d.n),
        ]
        for d in results.differences
    ]


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _significant(difference: Difference) -> bool:
    return difference.n >= _FEW and difference.p_holm is not None and difference.p_holm < LEVEL


def _sentence(d: Difference, results: _Results) -> str:
    assert d.interval is not None and d.p_holm is not None  # it is significant
    low, high = d.interval
    return (
        f"{results.names[d.cell]}: {d.variant} - {d.reference}: {d.mean:+.2f} points (95 %: {low:.2f} to {high:.2f}; p "
        f"{_p(d.p_holm)} after Holm, n = {d.n})."
    )


def _blocks(standing: Sequence[Rank], p: float | None) -> str:
    text = f"1 is the best; over {_count(standing[0].blocks, 'repetition')} that all variants have"
    return f"{text}." if p is None else f"{text}; Friedman's test that all rank alike: p {_p(p)}."


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _scale(records: Iterable[Record]) -> str:
    """What makes the runs, or some of them, no real experiment."""
    return ", ".join(sorted({record.scale for record in records if record.scale}))


def _warning(records: Sequence[Record]) -> str:
    """For titles."""
    scale = _scale(records)
    partly = "" if all(record.scale for record in records) else "partly "
    return f" ({partly}{scale} scale: no result)" if scale else ""


def _csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
    return file.getvalue()


def _say(console: Console, text: str, style: str = "") -> None:
    """Text whose brackets are not markup."""
    console.print(Text(text, style=style))


def _pages(results: _Results, width: int) -> list[list[Cell]]:
    """The columns, in as few tables as fit the width; those of a data set and backbone stay together if they can."""
    labels = max((min(len(variant), _FOLD) for variant in results.variants), default=0)
    widths = {
        cell: max(len(name), *(len("{0.value} {0.n}".format(results.entry(v, cell))) for v in results.variants))
        for cell, name in results.names.items()
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


def _results_table(results: _Results, cells: Sequence[Cell]) -> Table:
    table = _table()
    for cell in cells:
        table.add_column(Text(results.names[cell]), justify="right", overflow="fold")
    styles = {"": "", "best": "bold", "tied": "underline"}
    for variant in results.variants:
        entries = [results.entry(variant, cell) for cell in cells]
        shown = [Text.assemble((e.value, styles[e.mark]), (f" {e.n}" if e.n else "", "dim")) for e in entries]
        table.add_row(Text(variant), *shown)
    return table


def _differences_table(results: _Results) -> Table:
    """A section per cell; what is significant in bold."""
    table = _table()
    table.add_column("", max_width=_FOLD, overflow="fold")
    for heading in _DIFFERENCES[2:]:
        table.add_column(heading.replace("permutation", "perm."), justify="right", no_wrap=True)
    previous: Cell | None = None
    for d, (cell, variant, *numbers) in zip(results.differences, _difference_rows(results), strict=True):
        if previous not in (None, d.cell):
            table.add_section()
        style = "bold" if _significant(d) else ""
        table.add_row(Text("" if d.cell == previous else cell), Text(variant), *(Text(n, style) for n in numbers))
        previous = d.cell
    return table


def _ranks_table(standing: Sequence[Rank]) -> Table:
    table = _table()
    table.add_column("mean rank", justify="right")
    for rank in standing:
        table.add_row(Text(rank.variant), f"{rank.mean:.2f}")
    return table


def _table() -> Table:
    """With a column of names."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    table.add_column("", max_width=_FOLD, overflow="fold")
    return table
