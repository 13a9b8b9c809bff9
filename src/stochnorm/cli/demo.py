"""Compare ways to fine-tune on real photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stochnorm.comparison.compare import Comparison

__all__ = ["METHODS", "Demo", "demo"]

METHODS: dict[str, dict[str, Any]] = {
    "plain fine-tuning": {"method": "vanilla", "lr": 0.01},
    "StochNorm": {"method": "stochnorm", "lr": 0.003},
    "probe": {"method": "probe"},
    "auto": {"method": "auto", "budget": "75s", "steps": 300},
}
"""What is compared, by its name in tables: settings of a run. The first is the reference. Rates are the best of
0.001, 0.003 and 0.01 on validation images of the first repetition (results/evidence.py demo --steps 80); auto chooses
its own, and its steps by its budget (300 is the default, no bound)."""


@dataclass(frozen=True)
class Demo:
    """Compare ways to fine-tune on photographs of groceries, which are installed with stochnorm."""

    rate: float = 100.0
    """Percentage of the training images of each class."""
    steps: int = 80
    """Training steps per run."""
    seeds: int = 3
    """Runs per method. Each draws its own validation images, the same for all methods."""
    out: str = "runs/demo"
    """Directory for the runs, table, picture and report. Rerun the command to resume."""

    def run(self) -> None:
        demo(rate=self.rate, steps=self.steps, seeds=self.seeds, out=Path(self.out))


def demo(
    *, data: str = "groceries", rate: float, steps: int, seeds: int, image_size: int = 128, out: Path
) -> Comparison:
    """Fine-tune with each method on the same images, in the same order, and compare them on the test images.

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
    from stochnorm.comparison.compare import compare
    from stochnorm.comparison.grid import Grid, Variant
    from stochnorm.comparison.publish import publish
    from stochnorm.data import DATASETS
    from stochnorm.report.tables import show_results
    from stochnorm.runs.config import FinetuneConfig
    from stochnorm.terminal import Terminal

    variants = tuple(Variant(label, settings) for label, settings in METHODS.items())
    base = FinetuneConfig(data, rate=rate, steps=steps, image_size=image_size)
    comparison = compare(Grid(base, variants, repeats=seeds), out)
    comparison.check()
    if any(record.test is None for record in comparison.records):
        raise ValueError(f"{data}: no readable test image, so the methods cannot be compared; add test images")
    title = f"Fine-tuning on {DATASETS[data].subject}" if data in DATASETS else ""
    reference = variants[0].label
    publish(comparison, title=title, reference=reference)
    console = Terminal()
    show_results(console, comparison.records, reference=reference)
    console.print(f"picture: {out / 'results.png'}\nreport:  {out / 'report.html'}", markup=False)
    return comparison
