"""Write the records, tables, picture and report of a comparison."""

from __future__ import annotations

from pathlib import Path

from stochnorm.comparison.compare import Comparison
from stochnorm.runs.records import write_records

__all__ = ["publish"]


def publish(comparison: Comparison, *, title: str = "", reference: str = "vanilla") -> list[Path]:
    """Write `records.jsonl`, tables (Markdown, LaTeX, CSV), a picture and `report.html` into its directory.

    Args:
        comparison: A comparison with at least one finished run.
        title: Title of the report; empty: derived from the runs.
        reference: Variant that the others are compared with.

    Returns:
        The files.
    """
    from stochnorm.report import write_report
    from stochnorm.report.plot import plot_comparison
    from stochnorm.report.tables import write_tables

    out, records = comparison.path, comparison.records
    files = [out / "records.jsonl", out / "report.html", out / "results.png", out / "results.svg"]
    write_records(files[0], records)
    plot_comparison(records, out / "results", reference)
    write_report(records, files[1], root=out, title=title, failures=comparison.failures, reference=reference)
    return [*files, *write_tables(records, out, reference=reference)]
