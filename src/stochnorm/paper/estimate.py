"""Estimate the hours that the paper's tables and figures take on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from stochnorm.paper import NAMES
from stochnorm.paper.hours import Estimate, hours_of, runs_of
from stochnorm.paper.reproduce import Scale
from stochnorm.paper.speeds import measure

__all__ = ["estimate", "show_estimate"]


def estimate(
    names: Sequence[str] = NAMES, *, scale: Scale = "paper", repeats: int = 0, workers: int = 0, quiet: bool = False
) -> Estimate:
    """Measure the speeds of this machine and compute the hours of the paper's tables and figures.

    It measures training steps of each network and method, and evaluations, on images of noise with random weights, by
    the code of `stochnorm finetune`: on a GPU if there is one, else on the CPU. That takes a few minutes.

    Args:
        names: Experiments, some of `stochnorm.paper.NAMES`.
        scale: Scale, as in [stochnorm.paper.reproduce.reproduce][].
        repeats: Runs per cell; 0: those of the scale.
        workers: Runs at a time, as in [stochnorm.paper.hours.hours_of][], which computes the hours.
        quiet: Print nothing.

    Returns:
        The hours of each experiment, their total, and the speeds; `show_estimate` prints them.
    """
    if workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers}")
    configs = [config for name in names for config in runs_of(name, scale, repeats)]
    threads = int(scale == "small")  # as the runs have them
    return hours_of(
        names, measure(configs, threads=threads, quiet=quiet), scale=scale, repeats=repeats, workers=workers
    )


def show_estimate(console: Console, result: Estimate) -> None:
    """Print the hours as a table, and how they were found."""
    many = result.devices > 1
    together = f"{result.devices} at a time" if result.speeds.device.startswith("cpu") else f"{result.devices} devices"
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("experiment")
    for column in ("runs", "steps", "hours, one device", *([f"hours, {together}"] if many else [])):
        table.add_column(column, justify="right")
    for line in (*result.lines, *([result.total] if len(result.lines) > 1 else [])):
        shared = [_number(line.hours / result.devices)] if many else []
        table.add_row(line.name, f"{line.runs:,}", f"{line.steps:,}", _number(line.hours), *shared)
    console.print(table)
    notes = [
        f"{result.speeds.device}: {result.speeds.how}" if result.speeds.how else "",
        "Not counted: decoding the images at their first use, DELTA's measurement of channel attention, and the "
        "searches for strengths (--trials): about a run of the smallest rate per trial.",
        "The total has a run that several need once." if len(result.lines) > 1 else "",
    ]
    for note in filter(None, notes):
        console.print(note, style="dim", markup=False)


def _number(hours: float) -> str:
    """Write hours with two significant digits, from ten on without decimals."""
    return f"{float(f'{hours:.1e}'):,.0f}" if hours >= 10 else f"{hours:.2g}"
