"""Compare methods on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Suppress, arg

from stochnorm.cli.options import ExecutorName, Preset, Reference, RunOptions, Workers
from stochnorm.methods.catalogue import concerns

if TYPE_CHECKING:
    from stochnorm.comparison.grid import Grid

__all__ = ["Compare"]


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """The options of a comparison in addition to the settings of its runs."""

    methods: str = "vanilla,stochnorm"
    """Methods, joined by commas, each with its settings if any: stochnorm:p=0.3,stochnorm+l2sp:l2sp.alpha=0.01."""
    preset: Preset = ""
    rates: str = "100"
    """Percentages of the training images, joined by commas."""
    seeds: int = 3
    """Repetitions. Each draws its own images and its own training seed, the same for all methods."""
    same_images: bool = False
    """Use the same images in all repetitions."""
    grid_seed: Annotated[int, arg(name="seed")] = 0
    """Random seed that all other seeds are derived from."""
    trials: int = 0
    """Trials per method of a search on validation images, at the smallest rate, for lr, strengths and p; 0 for none."""
    grid_probe: Annotated[bool, arg(name="probe")] = True
    """Add the linear probe on the frozen backbone as a row to compare with."""
    reference: Reference = "vanilla"
    grid_workers: Annotated[Workers, arg(name="workers")] = 0
    threads: int = 0
    """CPU threads per run; 0 for an equal share of the cores."""
    processes: int = 1
    """Processes per run (torchrun), one GPU each."""
    executor: ExecutorName = "local"
    grid_out: Annotated[str, arg(name="out")] = ""
    """Directory for the runs, tables and report; empty for runs/compare-DATA. Rerun the command to resume."""


@dataclass(frozen=True)
class Compare(RunOptions, CompareOptions):
    """Compare methods on your images: train every method, rate and seed, then write tables and a report."""

    method: Suppress[str] = "stochnorm"  # the grid sets this and the next five
    rate: Suppress[float] = 100.0
    data_seed: Suppress[int] = 0
    seed: Suppress[int] = 0
    folds: Suppress[int] = 0  # of finetune alone
    workers: Suppress[int] = 0
    out: Suppress[str] = ""
    resume: Suppress[bool] = False  # always on
    overwrite: Suppress[bool] = False  # would delete hours of runs; remove the directory instead
    report: Suppress[bool] = False  # one for the comparison, none for a run

    @classmethod
    def preset_defaults(cls, preset: str) -> dict[str, Any]:
        """Return the values of a preset except its method, since --methods names those of the comparison."""
        return {name: value for name, value in super().preset_defaults(preset).items() if name != "method"}

    def run(self) -> None:
        grid = self.grid()
        labels = [variant.label for variant in grid.variants]
        if self.reference not in (*labels, "vanilla"):  # the default need not be among the methods
            raise ValueError(
                f"--reference must be one of the methods, got {self.reference!r}; choose from {', '.join(labels)}"
            )

        from stochnorm.comparison.compare import compare
        from stochnorm.comparison.publish import publish
        from stochnorm.comparison.tune import tune_variants
        from stochnorm.report.tables import show_results
        from stochnorm.runs.names import data_name
        from stochnorm.terminal import Terminal

        console = Terminal(soft_wrap=True)
        out = Path(self.grid_out or f"runs/compare-{data_name(self.data)}")
        workers, threads = self.grid_workers, self.threads
        if self.trials:
            grid = tune_variants(
                grid, out, trials=self.trials, workers=workers, threads=threads, executor_name=self.executor
            )
        comparison = compare(
            grid, out, workers=workers, threads=threads, processes=self.processes, executor_name=self.executor
        )
        if comparison.records:
            show_results(Terminal(), comparison.records, comparison.failures, reference=self.reference)
            for file in publish(comparison, reference=self.reference):
                console.print(str(file), markup=False, style="dim")
        comparison.check()

    def grid(self) -> Grid:
        """Return the grid of runs that the options describe.

        Raises:
            ValueError: A value is out of its range, or no method uses a setting.
        """
        base = self.config()

        from stochnorm.comparison.grid import Grid, Variant, parse_variant

        variants = tuple(parse_variant(text.strip()) for text in self.methods.split(",") if text.strip())
        if self.grid_probe and not any(variant.settings["method"] == "probe" for variant in variants):
            variants = (*variants, Variant("probe", {"method": "probe"}))
        try:
            rates = tuple(float(rate) for rate in self.rates.split(",") if rate.strip())
        except ValueError as error:
            raise ValueError(
                f"rates must be percentages joined by commas, such as 15,30,50,100; got {self.rates!r}"
            ) from error
        idle = [s for s in base.changed() if not any(concerns(s, variant.settings["method"]) for variant in variants)]
        if idle:
            raise ValueError(
                f"none of the methods {self.methods} uses {idle[0]}; remove it, or add a method that uses it"
            )
        return Grid(base, variants, rates, repeats=self.seeds, seed=self.grid_seed, same_images=self.same_images)
