"""BatchNorm and StochNorm side by side on real images, and what came out, whatever it is."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from stochnorm.comparison.compare import Comparison, compare, publish
from stochnorm.comparison.grid import Grid, Variant
from stochnorm.data import DATASETS
from stochnorm.report.tables import show_results
from stochnorm.runs.config import FinetuneConfig

__all__ = ["demo"]

BATCHNORM, STOCHNORM = Variant("BatchNorm", {"method": "vanilla"}), Variant("StochNorm", {"method": "stochnorm"})


def demo(
    *,
    data: str = "elpv",
    rate: float = 10.0,
    steps: int = 100,
    seeds: int = 3,
    image_size: int = 128,
    out: Path = Path("runs/demo"),
    quiet: bool = False,
) -> Comparison:
    """Fine-tune with both normalizations on the same images, in the same order, and compare them on the test split.

    Args:
        data: As for :class:`FinetuneConfig`.
        rate: Percentage of the training images of each class.
        steps: Training steps of each run.
        seeds: Runs per method; each draws its own images.
        image_size: Side of the network's input, pixels.
        out: Directory of the runs, the table, the picture and the report. Finished runs are not repeated, interrupted
            ones go on.
        quiet: Show nothing.

    Raises:
        ValueError: A run failed, there is no readable test image, or what :func:`stochnorm.compare` raises.
    """
    base = FinetuneConfig(data, rate=rate, steps=steps, image_size=image_size)
    comparison = compare(Grid(base, (BATCHNORM, STOCHNORM), repeats=seeds), out, quiet=quiet)
    if comparison.failures:
        raise ValueError(f"{len(comparison.failures)} runs failed: {comparison.failures[0].reason}")
    if any(record.test is None for record in comparison.records):
        raise ValueError(f"{data}: no readable test image, so nothing to compare the methods on; add some")
    title = f"Stochastic Normalization on {DATASETS[data].subject}" if data in DATASETS else ""
    publish(comparison, title=title, reference=BATCHNORM.label)
    console = Console(quiet=quiet, highlight=False)
    show_results(console, comparison.records, reference=BATCHNORM.label)
    console.print(f"picture: {out / 'results.png'}\nreport:  {out / 'report.html'}", markup=False)
    return comparison
