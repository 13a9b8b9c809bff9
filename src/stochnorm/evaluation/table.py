"""Tables of metrics for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rich import box
from rich.markup import escape
from rich.table import Table

from stochnorm.runs.scores import MEAN_AUC, TOP1
from stochnorm.text import interval

__all__ = ["COLUMNS", "Column", "class_table", "metrics_table", "warning_of"]


class Column(NamedTuple):
    """A metric in a table."""

    key: str
    """Key of the metric."""
    title: str
    """Title with its unit."""
    form: str = ".1f"
    """Format of a number."""


COLUMNS = (
    Column("images", "images", "d"),
    Column(TOP1.key, f"{TOP1.short} %"),
    Column(f"{TOP1.key}_interval", "95 % interval"),
    Column(MEAN_AUC.key, f"{MEAN_AUC.short} %"),
    Column(f"{MEAN_AUC.key}_interval", "95 % interval"),
    Column("average_precision", "AP %"),
    Column("mean_per_class", "per class %"),
    Column("macro_f1", "F1 %"),
    Column("ece", "ECE %"),
    Column("loss", "loss", ".3f"),
)
"""The metrics to show, in order; those that all splits have get a column. A new metric needs a row here."""


def metrics_table(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    """Make a table of metrics with a row per split; validation, which selects models, is dim."""
    columns = [column for column in COLUMNS if all(column.key in metrics for metrics in splits.values())]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("split", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for split, metrics in splits.items():
        values = (_text(metrics[column.key], column.form) for column in columns)
        table.add_row(split, *values, style="dim" if split == "validation" else "bold")
    return table


def warning_of(metrics: Mapping[str, Any]) -> str:
    """Return a warning if a model is right no more often than one that always answers with the largest class.

    Example:
        >>> warning_of({"top1": 92.6, "majority": 92.6})
        'top-1 92.6 % is what always answering with the largest class reaches; see F1 and per class, and try --balance'
    """
    top1, majority = metrics.get("top1"), metrics.get("majority")
    if top1 is None or majority is None or top1 > majority:
        return ""
    if round(top1, 1) == round(majority, 1):
        what = f"top-1 {top1:.1f} % is what always answering with the largest class reaches"
    else:
        what = f"top-1 {top1:.1f} % is below the {majority:.1f} % that always answering with the largest class reaches"
    return f"{what}; see F1 and per class, and try --balance"


def class_table(first: str, titles: Iterable[str], last: str, rows: Iterable[tuple[str, ...]]) -> Table:
    """Make a table with a row per class: its name, numbers, and a text."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column(last, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _text(value: Any, form: str) -> str:
    """Format a metric: a number, an interval, or a dash for None."""
    if value is None:
        return "-"
    return interval(value) if isinstance(value, (list, tuple)) else format(value, form)
