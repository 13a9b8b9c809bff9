"""The commands: their arguments and what they do, by the Python API. Heavy imports wait until a command runs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from stochnorm.config import FinetuneConfig
from stochnorm.methods import METHODS

if TYPE_CHECKING:
    from stochnorm.grid import Grid

__all__ = [
    "Compare",
    "Demo",
    "Doctor",
    "Download",
    "Finetune",
    "List",
    "Lists",
    "Paper",
    "Predict",
    "Report",
    "Tune",
    "Verify",
]


@dataclass(frozen=True)
class Finetune(FinetuneConfig):
    """Fine-tune a pre-trained backbone on your images; keep the best model on validation; test it once."""

    settings: str = ""
    """Take the defaults from this JSON file: what stochnorm tune chose, or a run's config.json."""

    def run(self) -> None:
        from stochnorm.job import finetune

        finetune(FinetuneConfig(**self.as_fields()))


@dataclass(frozen=True)
class Predict:
    """Classify images with the model of a run."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of a finished run, or its model.safetensors."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Image files, and folders of images."""
    csv: str = ""
    """Write class and probabilities of every image to this file."""
    strict: bool = False
    """Stop at an image that cannot be read, instead of leaving it out with a warning."""

    def run(self) -> None:
        from stochnorm.files import check_target, write_text
        from stochnorm.prediction import format_predictions, predict

        if self.csv:
            check_target(Path(self.csv))
        predictions = predict(self.model, self.images, strict=self.strict)
        table = Table(box=None, header_style="dim")
        for column in ("image", "class"):
            table.add_column(column, overflow="fold")
        table.add_column("probability", justify="right")
        for prediction in predictions:
            names = (str(prediction.path), prediction.label or "-")
            table.add_row(*map(_plain, names), f"{prediction.probability:.3f}")
        Console(highlight=False).print(table)
        if self.csv:
            paths, labels = [str(p.path) for p in predictions], [p.label for p in predictions]
            probabilities = [list(p.probabilities.values()) for p in predictions]
            text = format_predictions(paths, labels, probabilities, list(predictions[0].probabilities))
            write_text(Path(self.csv), text)


@dataclass(frozen=True)
class Tune(FinetuneConfig):
    """Choose learning rate, strengths and p of a method on validation; the test split stays shut."""

    trials: int = 20
    """In all; the same command goes on with a search that was stopped."""
    storage: str = ""
    """URL of Optuna's storage, for several machines; empty: an SQLite file in the search's directory."""
    prune: bool = True
    """Stop trials that are worse than the median of the others at the same step."""
    resume: tyro.conf.Suppress[bool] = False  # it always goes on
    overwrite: tyro.conf.Suppress[bool] = False  # hours of trials; remove the directory
    report: tyro.conf.Suppress[bool] = False

    def run(self) -> None:
        from stochnorm.tuning import tune

        tune(FinetuneConfig(**self.as_fields()), trials=self.trials, storage=self.storage, prune=self.prune)


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
    """Before comparing, choose learning rate, strengths and p of each method by so many trials on validation, at the
    smallest rate; 0: take them as they are given."""
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

    def run(self) -> None:
        from stochnorm.runs import data_name
        from stochnorm.sweep import compare, publish, tune_variants
        from stochnorm.tables import show_results

        console = Console(highlight=False, soft_wrap=True)
        grid, out = self.grid(), Path(self.out or f"runs/compare-{data_name(self.data)}")
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
        from stochnorm.grid import Grid, parse_variant

        variants = tuple(parse_variant(text.strip()) for text in self.methods.split(",") if text.strip())
        try:
            rates = tuple(float(rate) for rate in self.rates.split(",") if rate.strip())
        except ValueError as error:
            raise ValueError(
                f"rates are percentages joined by commas, such as 15,30,50,100; got {self.rates!r}"
            ) from error
        base = replace(FinetuneConfig(**self.as_fields()), workers=0)
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
    """paper: hours to days on a GPU. small: every cell with tiny networks, few images and two steps, in minutes on a
    CPU, which is no result; without --data-root on generated images."""
    weights: str = "pretrained"
    """ImageNet weights: pretrained downloads them; or a file, or a folder with a file for each backbone, such as
    resnet50-0676ba61.pth."""
    repeats: int = 0
    """Runs of each cell; 0: five as in the paper, two at small scale."""
    workers: int = 0
    """Runs at a time; 0: one per GPU, without GPUs one per core."""
    executor: Literal["local", "ray"] = "local"
    """Processes on this machine, or a Ray cluster."""
    out: str = ""
    """Directory; empty: runs/paper, or runs/paper-small. All of them may share it: a run that two want is made once.
    The same command goes on with it."""

    def run(self) -> None:
        from stochnorm.experiments import EXPERIMENTS
        from stochnorm.paper import reproduce

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
        from stochnorm.report import report

        if not self.runs:
            raise ValueError("no runs given; name directories of runs or of comparisons, or a records.jsonl")
        console = Console(highlight=False, soft_wrap=True)
        for file in report(self.runs, self.out, title=self.title, reference=self.reference):
            console.print(str(file), markup=False)


@dataclass(frozen=True)
class Doctor:
    """How far the statistics of your images lie from those that a backbone inherited, layer by layer, with advice."""

    backbone: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A name of timm or torchvision."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """As for finetune."""
    weights: str = "auto"
    """As for finetune."""
    image_size: int = 0
    """Side of the network's input, pixels; 0: that of the backbone's weights."""
    batch_size: int = 32
    """Images per step of the training to come."""
    max_images: int = 512
    """At most so many training images, drawn at random."""
    out: str = "doctor"
    """The picture: this name with .png and .svg."""

    def run(self) -> None:
        from stochnorm.doctor import diagnose
        from stochnorm.files import check_target

        check_target(Path(self.out).with_suffix(".png"))
        diagnosis = diagnose(
            self.backbone,
            self.data,
            weights=self.weights,
            image_size=self.image_size,
            batch_size=self.batch_size,
            max_images=self.max_images,
        )
        console = Console(highlight=False)
        diagnosis.show(console)
        diagnosis.plot(Path(self.out))
        console.print(f"picture: {Path(self.out).with_suffix('.png')}", markup=False)


@dataclass(frozen=True)
class List:
    """List the methods, the data sets that are known in their official formats, or the experiments of the paper."""

    what: Annotated[Literal["methods", "datasets", "experiments"], tyro.conf.Positional]

    def run(self) -> None:
        table = Table(box=box.SIMPLE_HEAD)
        if self.what == "methods":
            for column in ("--method", "what it does", "source"):
                table.add_column(column, no_wrap=column != "what it does")
            for method in METHODS.values():
                options = f"\n[dim]{' '.join(method.options)}[/]" if method.options else ""
                what = f"{method.title}: {method.what}{options}"
                table.add_row(f"[bold]{method.name}[/]", what, method.source)
            note = "Add them up: --method stochnorm+delta+bss. At most one of stochnorm, bin and frozen."
        elif self.what == "experiments":
            from stochnorm.experiments import EXPERIMENTS

            for column in ("name", "what it shows anew"):
                table.add_column(column, no_wrap=column == "name")
            for column in ("runs", "hours, GPU"):
                table.add_column(column, justify="right", no_wrap=True)
            for experiment in EXPERIMENTS.values():
                table.add_row(
                    f"[bold]{experiment.name}[/]", experiment.title, str(experiment.runs), f"{experiment.hours}"
                )
            note = (
                "stochnorm paper NAME --data-root FOLDER; hours are estimates for one A100, runs that two share count\n"
            )
            note += "in both. stochnorm paper NAME --scale small takes minutes on a CPU and is no result."
        else:
            from stochnorm.data import DATASETS

            table.add_column("name", no_wrap=True)
            table.add_column("data set", overflow="fold")
            for dataset in DATASETS.values():
                counts = ", ".join(f"{count:,} {name}" for name, count in dataset.counts.items())
                what = f"{dataset.title}: {counts}\n[dim]{dataset.licence}\n{dataset.homepage}[/]"
                table.add_row(f"[bold]{dataset.name}[/]", what)
            note = "Give the folder that holds one as DATA; stochnorm verify PATH says whether it is whole."
        console = Console(highlight=False)
        console.print(table)
        console.print(note)


@dataclass(frozen=True)
class Verify:
    """Hold a data set on disk against its official counts and lists."""

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """Its folder."""

    def run(self) -> None:
        from stochnorm.data import verify

        report = verify(self.path)
        Console(highlight=False, soft_wrap=True).print("\n".join(report.lines()), markup=False)
        if not report.ok:
            raise ValueError(f"{self.path} is not the whole official data set; see above")


@dataclass(frozen=True)
class Download:
    """Download a data set from its official address, with a checksum."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """As in stochnorm ls datasets."""
    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where its folder goes."""

    def run(self) -> None:
        from stochnorm.data import download

        path = download(self.name, self.root)
        Console(highlight=False, soft_wrap=True).print(f"{self.name} is in {path}", markup=False)


@dataclass(frozen=True)
class Lists:
    """Write which images train, validate and test, one list a split, for others to use with --split-lists."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """As for finetune."""
    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where train.txt, val.txt and test.txt go."""
    rate: float = 100.0
    """Use only this percentage of the training images: ceil(rate % of n) of each class with n."""
    val_fraction: float = 0.2
    """Share of the sampled training images that validate, where DATA has no validation split."""
    test_fraction: float = 0.2
    """Share of all images that test, where DATA has no test split."""
    data_seed: int = 0
    """Which images are sampled and split off."""
    pool_val: bool = False
    """Pool the validation images of DATA with the training images before sampling."""

    def run(self) -> None:
        from stochnorm.data import export_lists, read_source
        from stochnorm.job import split_rows

        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("out",)}
        config = FinetuneConfig(**settings)
        rows = split_rows(read_source(self.data), config)
        for path in export_lists(rows, Path(self.out)):
            count = sum(row.split == path.stem for row in rows)
            Console(highlight=False, soft_wrap=True).print(f"{path}: {count} images", markup=False)


@dataclass(frozen=True)
class Demo:
    """Fine-tune on real images with BatchNorm and with StochNorm, and show both side by side."""

    rate: float = 10.0
    """Percentage of the training images of each class."""
    steps: int = 100
    """Training steps of each run."""
    seeds: int = 3
    """Runs per method; each draws its own images, the same for both."""
    out: str = "runs/demo"
    """Directory of the runs, table, picture and report. Finished runs in it are not repeated."""

    def run(self) -> None:
        from stochnorm.demo import demo

        demo(rate=self.rate, steps=self.steps, seeds=self.seeds, out=Path(self.out))


def _plain(text: str) -> str:
    """Text whose brackets are not markup."""
    return text.replace("[", "\\[")
