"""Commands that compare methods, redo the paper's comparisons, and report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from stochnorm.cli.options import own_options_first
from stochnorm.methods.catalogue import concerns
from stochnorm.runs.config import FinetuneConfig

if TYPE_CHECKING:
    from stochnorm.comparison.grid import Grid

__all__ = ["Compare", "Paper", "Report"]


@own_options_first
@dataclass(frozen=True)
class Compare(FinetuneConfig):
    """Compare methods on your images: every method, rate and seed, side by side; then the table and the report."""

    methods: str = "vanilla,stochnorm"
    """What to compare, joined by commas; with settings of their own: stochnorm:p=0.3,stochnorm+l2sp:l2sp.alpha=0.01."""
    rates: str = "100"
    """Percentages of the training images, joined by commas."""
    seeds: int = 3
    """Repetitions. Each draws its own images and its own training, the same for all methods."""
    same_images: bool = False
    """Repetitions differ in their training alone."""
    seed: int = 0
    """All seeds are derived from it."""
    trials: int = 0
    """Trials on validation, at the smallest rate, that choose lr, strengths and p of each method first; 0: none."""
    reference: str = "vanilla"
    """The method that the others are compared with."""
    workers: int = 0
    """Runs at a time; 0: one per GPU, without GPUs one per core."""
    threads: int = 0
    """CPU threads of each run; 0: the cores shared out."""
    processes: int = 1
    """That share each run, by torchrun, each on a GPU of its own."""
    executor: Literal["local", "ray"] = "local"
    """Processes on this machine, or a Ray cluster (that of RAY_ADDRESS, or a new one here)."""
    out: str = ""
    """Directory of the runs, tables and report; empty: runs/compare-DATA. The same command goes on with it."""
    method: tyro.conf.Suppress[str] = "stochnorm"
    rate: tyro.conf.Suppress[float] = 100.0
    data_seed: tyro.conf.Suppress[int] = 0
    resume: tyro.conf.Suppress[bool] = False  # it always goes on
    overwrite: tyro.conf.Suppress[bool] = False  # hours of runs; remove the directory
    report: tyro.conf.Suppress[bool] = False  # of each run; there is one of all

    def __post_init__(self) -> None:
        """What is out of range is said by run, in one line."""

    def run(self) -> None:
        grid = self.grid()

        from rich.console import Console

        from stochnorm.comparison.compare import compare, publish, tune_variants
        from stochnorm.report.tables import show_results
        from stochnorm.runs.directory import data_name

        console = Console(highlight=False, soft_wrap=True)
        out = Path(self.out or f"runs/compare-{data_name(self.data)}")
        places = {"workers": self.workers, "threads": self.threads, "executor_name": self.executor}
        if self.trials:
            grid = tune_variants(grid, out, trials=self.trials, **places)  # type: ignore[arg-type]
        comparison = compare(grid, out, processes=self.processes, **places)  # type: ignore[arg-type]
        records, failures = comparison.records, comparison.failures
        if records:
            show_results(Console(highlight=False), records, failures, reference=self.reference)
            for file in publish(comparison, reference=self.reference):
                console.print(str(file), markup=False, style="dim")
        if failures:
            raise ValueError(f"{len(failures)} of {len(failures) + len(records)} runs failed: {failures[0].reason}")

    def grid(self) -> Grid:
        """What the options say."""
        base = replace(FinetuneConfig(**self.as_fields()), workers=0)

        from stochnorm.comparison.grid import Grid, parse_variant

        variants = tuple(parse_variant(text.strip()) for text in self.methods.split(",") if text.strip())
        try:
            rates = tuple(float(rate) for rate in self.rates.split(",") if rate.strip())
        except ValueError as error:
            raise ValueError(
                f"rates are percentages joined by commas, such as 15,30,50,100; got {self.rates!r}"
            ) from error
        idle = [s for s in base.changed() if not any(concerns(s, variant.settings["method"]) for variant in variants)]
        if idle:
            raise ValueError(f"{idle[0]} has no part in {self.methods}; leave it out, or compare a method of its")
        return Grid(base, variants, rates, repeats=self.seeds, seed=self.seed, same_images=self.same_images)


@dataclass(frozen=True)
class Paper:
    """Run a table or figure of the paper anew, and show it beside the paper's numbers."""

    name: Annotated[
        Literal["table2", "table3", "table4", "figure3", "figure4a", "figure4b", "figure4c", "figure4d", "all"],
        tyro.conf.Positional,
    ]
    """Which (stochnorm ls experiments)."""
    data_root: str = ""
    """Folder that holds the data sets in their official formats, each in a folder of its own."""
    scale: Literal["paper", "small"] = "paper"
    """paper: hours to days on a GPU.
    small: every cell with tiny networks, few images and two steps, in minutes on a CPU, which is no result;
    without --data-root on generated images."""
    weights: str = "pretrained"
    """ImageNet weights: pretrained downloads them;
    or a file, or a folder with a file for each backbone, such as resnet50-0676ba61.pth."""
    repeats: int = 0
    """Runs of each cell; 0: five as in the paper, two at small scale."""
    workers: int = 0
    """Runs at a time; 0: one per GPU, without GPUs one per core."""
    executor: Literal["local", "ray"] = "local"
    """Processes on this machine, or a Ray cluster."""
    out: str = ""
    """Directory; empty: runs/paper, or runs/paper-small.
    All of them may share it: a run that two want is made once. The same command goes on with it."""

    def run(self) -> None:
        from stochnorm.paper import EXPERIMENTS
        from stochnorm.paper.reproduce import reproduce

        errors = []
        for name in EXPERIMENTS if self.name == "all" else [self.name]:
            try:
                reproduce(
                    name,
                    data_root=self.data_root,
                    scale=self.scale,
                    weights=self.weights,
                    out=self.out,
                    repeats=self.repeats,
                    workers=self.workers,
                    executor_name=self.executor,
                )
            except (ValueError, OSError) as error:
                if self.name != "all":
                    raise
                errors.append(f"{name}: {error}")
        if errors:
            raise ValueError("; ".join(errors))


@dataclass(frozen=True)
class Report:
    """Write one HTML page on runs that are finished, and their tables as Markdown, LaTeX and CSV beside it."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")]
    """Directories of runs or of comparisons, and files of records (records.jsonl)."""
    out: str = ""
    """The page; empty: report.html in the first directory."""
    title: str = ""
    """Of the page; empty: made of what was run."""
    reference: str = "vanilla"
    """The method that the others are compared with."""

    def run(self) -> None:
        if not self.runs:
            raise ValueError("no runs given; name directories of runs or of comparisons, or a records.jsonl")

        from rich.console import Console

        from stochnorm.report import report

        console = Console(highlight=False, soft_wrap=True)
        for file in report(self.runs, self.out, title=self.title, reference=self.reference):
            console.print(str(file), markup=False)
