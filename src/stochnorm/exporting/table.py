"""Show what was exported: a table of files."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stochnorm.exporting.export import Export
from stochnorm.text import DASH, count, signed

__all__ = ["show"]


def show(done: Export, console: Console) -> None:
    """Print a row per file, and how the files were checked."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("format")
    for title in ("precision", "MB", "ms", "differs", "same %", "score %", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    if done.score is not None:
        time = DASH if done.latency is None else f"{done.latency:.1f}"
        table.add_row("the run, in PyTorch", "fp32", _size(done), time, "", "", f"{done.score:.1f}", "")
    for file in done.files:
        numbers = [DASH] * 5
        if (check := file.check) is not None:
            score = [DASH, DASH]
            if check.score is not None and check.change is not None:
                score = [f"{check.score:.1f}", signed(check.change, 1)]
            numbers = [f"{check.latency:.1f}", f"{check.difference:.1g}", f"{check.agreement:.1f}", *score]
        table.add_row(file.format, file.precision, f"{file.size / 1e6:.2f}", *numbers)
    console.print(table)
    if check := done.files[0].check:
        console.print(
            f"checked on {count(check.images, f'{check.split} image')} against the run's own predictions. differs: a "
            "probability, at most; same: the class; change: of the score, points; ms: one image on this CPU"
        )
        if check.pixels is not None:
            console.print(f"pixels of the preprocessing in the graph differ by {check.pixels:.2f} of 255 on average")
    if done.recorded is not None:
        console.print(
            f"predictions that the run wrote down: {done.recorded[0]} of {done.recorded[1]} are the same class"
        )
    for file in done.files:
        console.print(f"wrote {escape(str(file.path))}", soft_wrap=True)
    if done.pushed:
        console.print(f"pushed to {escape(done.pushed)}", soft_wrap=True)


def _size(done: Export) -> str:
    file = done.run / "model.safetensors" if done.run.is_dir() else done.run
    return f"{file.stat().st_size / 1e6:.2f}"
