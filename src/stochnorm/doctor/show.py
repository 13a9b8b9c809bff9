"""A diagnosis in the terminal and as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stochnorm.doctor.statistics import LayerStatistics, NetworkStatistics
from stochnorm.spreadsheet import format_csv
from stochnorm.text import rounded

__all__ = ["format_rows", "picture_path", "show_statistics"]


def show_statistics(
    found: NetworkStatistics, advice: Sequence[str], console: Console, layers: int | None = None
) -> None:
    """Print the advice, whose first line is a command, and a table of the farthest layers, or of all."""
    command, *said = advice
    console.print(f"\n{command}", style="bold", markup=False, soft_wrap=True)  # to be copied: no line break in it
    for line in said:
        console.print(f"- {line}", markup=False)
    rows = found.rows
    if layers is not None and len(rows) > layers:
        rows = sorted(rows, key=lambda row: row.distance, reverse=True)[:layers]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    longest = max((len(row.name) for row in rows), default=0)
    table.add_column("layer", overflow="fold", min_width=0 if console.is_terminal else longest)
    titles = ("chan-\nnels", "shift,\nsigma", "beyond\n1, %", "scale,\nlog2", "noise,\nsigma", "dead", "awake")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        style = "red" if row.far else None if row.near else "yellow"
        values = (rounded(row.shift), f"{100 * row.beyond:.0f}", rounded(row.scale), rounded(row.noise))
        counts = (str(count) if count else "" for count in (row.dead, row.awake))
        table.add_row(Text(row.name), str(row.channels), *values, *counts, style=style)
    console.print()
    console.print(table, crop=False)
    part = f"{len(rows)} farthest of {len(found.rows)} layers (--all for all), " if len(rows) < len(found.rows) else ""
    console.print(f"\n{part}{found.images} images in {found.batches} batches", style="dim")


def format_rows(rows: Sequence[LayerStatistics]) -> str:
    """Return CSV text with a line per layer."""
    columns = [field.name for field in fields(LayerStatistics)]
    return format_csv([columns, *(map(_field, asdict(row).values()) for row in rows)])


def picture_path(name: str | Path) -> Path:
    """Return the PNG file of a figure's name, which may end in .png or .svg, or be a folder (or end in a slash).

    Example:
        >>> [str(picture_path(name)) for name in ("fig", "fig.v1", "fig.svg", ".", "new/")]
        ['fig.png', 'fig.v1.png', 'fig.png', 'doctor.png', 'new/doctor.png']
    """
    path = Path(name)
    if path.is_dir() or str(name).endswith("/"):
        path /= "doctor"
    return path.with_suffix(".png") if path.suffix in (".png", ".svg") else path.with_name(f"{path.name}.png")


def _field(value: float | str) -> float | str:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
