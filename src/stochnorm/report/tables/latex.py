"""A comparison as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stochnorm.report.tables.content import DIFFERENCES, ENTRY, MEANING, TIED, UNDONE, collect, difference_rows
from stochnorm.runs.records import Record

__all__ = ["format_latex"]

_SPECIAL = str.maketrans(
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


def format_latex(records: Sequence[Record], reference: str = "vanilla") -> str:
    """Return results and differences as tables for booktabs; the best is bold, those tied with it underlined."""
    results = collect(records, reference)
    marks = {"": "{}", "best": r"\textbf{{{}}}", "tied": r"\underline{{{}}}"}

    def escape(text: str) -> str:
        return text.translate(_SPECIAL)

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
        return f"% {UNDONE}\n"
    legend = f" Bold: the best mean; underlined: {TIED}." if results.compared else ""
    caption = " ".join([f"{results.measure}{results.warning}, percent: {ENTRY}.{legend}", *results.notes])
    rows = ([escape(name), *(e.marked(marks, escape) for e in row)] for name, row in results.lines())
    text = table(caption, ["", *results.names.values()], rows)
    if results.differences:
        caption = f"Differences to {reference}{results.warning}, points. {MEANING}"
        text += "\n" + table(caption, DIFFERENCES, (map(escape, row) for row in difference_rows(results)), 2)
    return text
