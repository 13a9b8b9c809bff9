"""The results of a comparison as Markdown, LaTeX, CSV and in the terminal; docs/statistics.md explains them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stochnorm.files import write_text
from stochnorm.report.tables.csv_lines import format_differences_csv, format_results_csv
from stochnorm.report.tables.latex import format_latex
from stochnorm.report.tables.markdown import format_markdown
from stochnorm.report.tables.sentences import conclusions
from stochnorm.report.tables.terminal import show_results
from stochnorm.runs.records import Record

__all__ = [
    "conclusions",
    "format_differences_csv",
    "format_latex",
    "format_markdown",
    "format_results_csv",
    "show_results",
    "write_tables",
]


def write_tables(records: Sequence[Record], out: Path, reference: str = "vanilla") -> list[Path]:
    """Write ``results.md``, ``results.tex`` (for booktabs), ``results.csv`` and ``differences.csv``.

    Args:
        records: Records of finished runs; may be empty.
        out: Existing folder.
        reference: Label of the variant with which the others are compared.

    Returns:
        The files that were written.

    Raises:
        ValueError: As [stochnorm.report.statistics.summarize][].
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
