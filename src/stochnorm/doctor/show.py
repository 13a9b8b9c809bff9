"""A diagnosis in the terminal and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stochnorm.doctor.statistics import LayerStatistics, NetworkStatistics
from stochnorm.files import write_text
from stochnorm.text import rounded

__all__ = ["picture_path", "show_statistics", "write_rows"]


def show_statistics(found: NetworkStatistics, advice: Sequence[str], console: Console) -> None:
    """Print a table with a line per layer, and the advice."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    longest = max((len(row.name) for row in found.rows), default=0)
    table.add_column("layer", overflow="fold", min_width=0 if console.is_terminal else longest)
    titles = ("chan-\nnels", "shift,\nsigma", "beyond\n1, %", "scale,\nlog2", "noise,\nsigma", "dead", "awake")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in found.rows:
        style = "red" if row.far else None if row.near else "yellow"
        values = (rounded(row.shift), f"{100 * row.beyond:.0f}", rounded(row.scale), rounded(row.noise))
        counts = (str(count) if count else "" for count in (row.dead, row.awake))
        table.add_row(Text(row.name), str(row.channels), *values, *counts, style=style)
    console.print()
    console.print(table, crop=False)
    console.print(f"\n{found.images} images in {found.batches} batches", style="dim")
    for line in advice:
        # A pattern is to be copied, so no line break is put into it.
        console.print(f"- {line}", markup=False, soft_wrap="--norm-layers" in line)


def write_rows(rows: Sequence[LayerStatistics], path: Path) -> None:
    """Write a CSV file with a line per layer."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(LayerStatistics)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _field(value) for name, value in asdict(row).items()})
    write_text(path, text.getvalue())


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
