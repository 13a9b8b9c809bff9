"""Compare BatchNorm and StochNorm on real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stochnorm.comparison.compare import Comparison

__all__ = ["Demo", "demo"]


@dataclass(frozen=True)
class Demo:
    """Fine-tune on real photographs with BatchNorm and with StochNorm, and compare the two."""

    rate: float = 10.0
    """Percentage of the training images of each class."""
    steps: int = 100
    """Training steps per run."""
    seeds: int = 3
    """Runs per method. Each draws its own images, the same for both methods."""
    out: str = "runs/demo"
    """Directory for the runs, table, picture and report. Rerun the command to resume."""

    def run(self) -> None:
        demo(rate=self.rate, steps=self.steps, seeds=self.seeds, out=Path(self.out))


def demo(*, data: str = "elpv", rate: float, steps: int, seeds: int, image_size: int = 128, out: Path) -> Comparison:
    """Fine-tune with both normalizations on the same images, in the same order, and compare them on the test images.

    Args:
        data: The images, as in [stochnorm.FinetuneConfig][].
        rate: Percentage of the training images of each class.
        steps: Training steps per run.
        seeds: Runs per method; each draws its own images.
        image_size: Side of the network's input, pixels.
        out: Directory for the runs, table, picture and report. Finished runs are kept, interrupted runs are resumed.

    Raises:
        ValueError: A run failed, there is no readable test image, or an error of [stochnorm.compare][].
    """
    from rich.console import Console

    from stochnorm.comparison.compare import compare
    from stochnorm.comparison.grid import Grid, Variant
    from stochnorm.comparison.publish import publish
    from stochnorm.data import DATASETS
    from stochnorm.report.tables import show_results
    from stochnorm.runs.config import FinetuneConfig

    batchnorm, stochnorm = Variant("BatchNorm", {"method": "vanilla"}), Variant("StochNorm", {"method": "stochnorm"})
    base = FinetuneConfig(data, rate=rate, steps=steps, image_size=image_size)
    comparison = compare(Grid(base, (batchnorm, stochnorm), repeats=seeds), out)
    comparison.check()
    if any(record.test is None for record in comparison.records):
        raise ValueError(f"{data}: no readable test image, so the methods cannot be compared; add test images")
    title = f"Stochastic Normalization on {DATASETS[data].subject}" if data in DATASETS else ""
    publish(comparison, title=title, reference=batchnorm.label)
    console = Console(highlight=False)
    show_results(console, comparison.records, reference=batchnorm.label)
    console.print(f"picture: {out / 'results.png'}\nreport:  {out / 'report.html'}", markup=False)
    return comparison
