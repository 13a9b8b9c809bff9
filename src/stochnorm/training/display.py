"""The terminal output of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from stochnorm.evaluation.table import metrics_table, warning_of
from stochnorm.methods.catalogue import methods_of, trains
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import precision_of
from stochnorm.runs.scores import SCORES
from stochnorm.terminal import Terminal

if TYPE_CHECKING:
    from rich.progress import Task, TaskID

    from stochnorm.training.job import Job

__all__ = ["Display"]

T = TypeVar("T")

_ENOUGH = 5  # validation images a class


class Display:
    """Progress bars and tables on standard output; nothing with `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Terminal(quiet=quiet)

    def note(self, text: str) -> None:
        """Print lines to copy, which only the terminal breaks."""
        self.console.print(text, markup=False, soft_wrap=True)

    def facts(self, values: Mapping[str, str]) -> None:
        """Print names with their values."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for name, value in values.items():
            table.add_row(name, escape(value))
        self.console.print(table)

    def track(self, items: Iterable[T], *, description: str, total: int) -> Iterator[T]:
        """Yield the items under a progress bar."""
        with self._progress(MofNCompleteColumn(), TimeRemainingColumn(compact=True)) as progress:
            yield from progress.track(items, description=description, total=total)

    def header(self, job: Job) -> None:
        """Show what the run works on and with."""
        config, classifier, fabric = job.config, job.classifier, job.fabric
        counts = " / ".join(f"{count} {name}" for name, count in job.counts.items())
        compared = ", ".join(job.method.get("delta_layers", ()))
        processes = f", {fabric.world_size} processes" if fabric.world_size > 1 else ""
        how = ", compiled" * config.compile + ", deterministic" * config.deterministic
        self.facts(
            {
                "data": config.data,
                "images": f"{counts}, {len(classifier.classes)} classes, {_sample(config)}",
                "model": (f"{config.backbone}, {classifier.weights} weights, {classifier.preprocessing.image_size} px"),
                "method": describe(config),
                **({"compared": compared} if compared else {}),
                **({"probe": _probe(job)} if job.probe is not None else {}),
                "compute": f"{fabric.device.type}, {precision_of(fabric)}{processes}{how}",
            }
        )
        if noise := _noise(job.counts["val"], len(classifier.classes)) if not classifier.multi_label else "":
            self.note(noise)
        if config.compile and fabric.device.type == "cpu":
            self.note("--compile takes minutes before the first step; it is for thousands of steps on a GPU")

    @contextmanager
    def measuring(self, what: str) -> Iterator[Callable[[float], None]]:
        """Give a function that takes the fraction that is done; show nothing until it is called."""
        with self._progress(TimeRemainingColumn(compact=True)) as progress:
            task: TaskID | None = None

            def tell(fraction: float) -> None:
                nonlocal task
                if task is None:
                    task = progress.add_task(what, total=1.0)
                progress.update(task, completed=fraction)

            yield tell

    @contextmanager
    def training(self, steps: int, per_epoch: int, start: int) -> Iterator[_TrainingBars]:
        columns = (MofNCompleteColumn(), _TimeOfTraining(compact=True), TextColumn("{task.fields[note]}"))
        with self._progress(*columns) as progress:
            yield _TrainingBars(progress, steps, per_epoch, start)

    def result(self, record: dict[str, Any], run: Run) -> None:
        folds = record.get("folds")
        named = {"validation": record["validation"], f"{folds['count']} folds" if folds else "test": record["test"]}
        self.console.print(metrics_table({name: metrics for name, metrics in named.items() if metrics}))
        if folds:
            self.note(f"estimate: {folds['estimate']}\nmodel: {folds['model']}")
        if warning := warning_of(record["test"] or record["validation"] or {}):
            self.note(f"warning: {warning}")
        cost = record["cost"]
        selected = record["selected"]
        of = f" of {record['method']['chosen']}" if "auto" in record else ""
        if trains(record["config"]["method"]):
            self.note(
                f"selected: step {selected['step']} ({selected['by']}){of}; trained {cost['seconds'] / 60:.1f} min, "
                f"{cost['images_per_second']:.0f} images/s"
            )
        else:
            self.note(f"selected: C = {record['probe']['strength']:g} ({selected['by']}); {cost['seconds']:.1f} s")
        if "stopped_early" in record:
            patience = record["config"]["patience"]
            self.note(f"stopped early at step {record['stopped_early']}: {patience} validations brought nothing better")
        if warning := record.get("probe", {}).get("warning"):
            self.note(f"warning: {warning}")
        if record["test"] is None and record["config"]["select"] == "best":
            self.note("no test images: the validation score selected the model, so it is too optimistic")
        if run.report.is_file():
            self.note(f"report: {run.report}")
        self.note(f"run: {run.path}\npredict: stochnorm predict {run.path} IMAGES...")

    def _progress(self, *columns: ProgressColumn) -> Progress:
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            *columns,
            console=self.console,
            transient=True,
        )


class _TimeOfTraining(TimeRemainingColumn):
    """The remaining time of the whole training; the bar of an epoch starts too often to know its own."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["timed"] else Text()


class _TrainingBars:
    """A bar for the epoch and one for the training, and a line per validation above them."""

    def __init__(self, progress: Progress, steps: int, per_epoch: int, start: int) -> None:
        self.progress, self.steps, self.per_epoch = progress, steps, per_epoch
        self.epochs = -(-steps // per_epoch)
        self.epoch: TaskID = progress.add_task("epoch", total=per_epoch, note="", timed=False)
        self.step: TaskID = progress.add_task("steps", total=steps, completed=start, note="", timed=True)
        self.titled = False

    def advance(self, step: int, sums: dict[str, float]) -> None:
        """Show the state after a step; the sums are those since the last validation."""
        images, seconds = sums["images"], sums["seconds"]
        epoch, position = divmod(step, self.per_epoch)
        self.progress.update(
            self.epoch, description=f"epoch {epoch + 1} of {self.epochs}", completed=position + 1, total=self.per_epoch
        )
        accuracy = f"  accuracy {sums['score'] / images:.1f} %" if "score" in sums else ""
        note = f"loss {sums['loss'] / images:.3f}{accuracy}  {images / seconds:.0f} images/s"
        self.progress.update(self.step, completed=step + 1, note=note)

    def validated(self, record: dict[str, Any]) -> None:
        score = record["score"]
        title = SCORES[score].column
        columns: dict[str, tuple[Any, str]] = {
            " step": (record["step"], "d"),
            "epoch": (record["epoch"], ".1f"),
            "train loss": (record["train_loss"], ".3f"),
            **({title: (record[f"train_{score}"], ".1f")} if f"train_{score}" in record else {}),
            **{
                name.removeprefix("penalty_").rjust(7): (v, ".3f")
                for name, v in record.items()
                if name.startswith("penalty_")
            },
            "val loss": (record["val_loss"], ".3f"),
            f"val {title}": (record[f"val_{score}"], ".1f"),
            "img/s": (record["images_per_second"], ".0f"),
        }
        if not self.titled:
            self.titled = True
            self.progress.console.print("  ".join(columns), style="dim", soft_wrap=True)
        values = ("-" if v is None else format(v, form) for v, form in columns.values())
        cells = (value.rjust(len(name)) for name, value in zip(columns, values, strict=True))
        self.progress.console.print("  ".join(cells), soft_wrap=True)


def describe(config: FinetuneConfig) -> str:
    """Return the method of a run with its settings, in a line."""
    methods = (f"{m.title} {m.describe(m.settings_of(config))}".rstrip() for m in methods_of(config.method))
    text = ", ".join(methods)
    text += f", layers matching {config.norm_layers}" if config.norm_layers else ""
    text += f", {config.statistics} statistics" if config.statistics != "pretrained" else ""
    return text + (f", momentum {config.norm_momentum:g}" if config.norm_momentum is not None else "")


def _probe(job: Job) -> str:
    """Return what the probe reaches on validation images, and how it was fitted."""
    assert job.probe is not None
    probe, task = job.probe, job.task
    value = probe.validation[task.score]
    reached = "undefined" if value is None else f"{value:.1f} %"
    return (
        f"validation {task.score_title} {reached}, C = {probe.strength:g}, fitted on {probe.images} images "
        f"({probe.fitted_on}), {probe.seconds:.1f} s"
    )


def _noise(images: int, classes: int) -> str:
    """Return a warning where the validation images are too few to tell much, else nothing."""
    if images >= _ENOUGH * classes or not images:
        return ""
    points = 100 * 1.96 * math.sqrt(0.25 / max(images, 1))
    return (
        f"{images} validation images of {classes} classes are few: a validation accuracy of 50 % is uncertain by "
        f"±{points:.0f} points"
    )


def _sample(config: FinetuneConfig) -> str:
    return f"lists {config.split_lists}" if config.split_lists else f"rate {config.rate:g} %"
