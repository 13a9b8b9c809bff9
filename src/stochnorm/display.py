"""What a run shows in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from lightning_fabric import Fabric
from rich import box
from rich.console import Console
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

from stochnorm.config import FinetuneConfig
from stochnorm.hardware import precision_of
from stochnorm.models import Classifier
from stochnorm.runs import Run

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Display", "interval"]

T = TypeVar("T")


class Display:
    """Progress bars and tables on standard output; nothing with ``quiet``."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)

    def note(self, text: str) -> None:
        self.console.print(text, markup=False)

    def track(self, items: Iterable[T], *, description: str, total: int) -> Iterator[T]:
        """Yields the items under a progress bar."""
        with self._progress(MofNCompleteColumn(), TimeRemainingColumn(compact=True)) as progress:
            yield from progress.track(items, description=description, total=total)

    def header(self, config: FinetuneConfig, classifier: Classifier, images: dict[str, int], fabric: Fabric) -> None:
        """What the run works on and with."""
        norm = f"stochnorm p={config.p:g}" if config.norm == "stochnorm" else config.norm
        counts = " / ".join(f"{count} {name}" for name, count in images.items())
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column()
        for name, value in (
            ("data", config.data),
            ("images", f"{counts}, {len(classifier.classes)} classes, rate {config.rate:g} %"),
            ("model", f"{config.backbone}, {classifier.weights} weights, {norm}, {config.image_size} px"),
            (
                "compute",
                f"{fabric.device.type}, {precision_of(fabric)}"
                + (f", {fabric.world_size} processes" if fabric.world_size > 1 else ""),
            ),
        ):
            table.add_row(name, _plain(value))
        self.console.print(table)

    @contextmanager
    def training(self, steps: int, per_epoch: int, start: int) -> Iterator[_TrainingBars]:
        columns = (MofNCompleteColumn(), TimeRemainingColumn(compact=True), TextColumn("{task.fields[note]}"))
        with self._progress(*columns) as progress:
            yield _TrainingBars(progress, steps, per_epoch, start)

    def result(self, record: dict[str, Any], run: Run) -> None:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("split")
        for name in ("images", "top-1 %", "95 % interval", "mean per class %", "loss"):
            table.add_column(name, justify="right")
        for split in ("validation", "test"):
            metrics = record[split]
            if metrics:
                style = "bold" if split == "test" else "dim"
                table.add_row(
                    split,
                    str(metrics["images"]),
                    f"{metrics['top1']:.1f}",
                    interval(metrics["top1_interval"]),
                    f"{metrics['mean_per_class']:.1f}",
                    f"{metrics['loss']:.3f}",
                    style=style,
                )
        self.console.print(table)
        cost = record["cost"]
        selected = record["selected"]["step"]
        self.note(
            f"selected at step {selected} on validation; trained {cost['seconds'] / 60:.1f} min, "
            f"{cost['images_per_second']:.0f} images/s"
        )
        if record["test"] is None:
            self.note("no test split: the validation figure is optimistic, since it selected the model")
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


class _TrainingBars:
    """An epoch's bar and the whole training's, and a line per validation above them."""

    def __init__(self, progress: Progress, steps: int, per_epoch: int, start: int) -> None:
        self.progress, self.steps, self.per_epoch = progress, steps, per_epoch
        self.epochs = -(-steps // per_epoch)
        self.epoch: TaskID = progress.add_task("epoch", total=per_epoch, note="")
        self.step: TaskID = progress.add_task("steps", total=steps, completed=start, note="")
        self.titled = False

    def advance(self, step: int, loss: float, correct: float, images: float, seconds: float) -> None:
        """Shows the state after a step; the sums are those since the last validation."""
        epoch, position = divmod(step, self.per_epoch)
        self.progress.update(
            self.epoch, description=f"epoch {epoch + 1} of {self.epochs}", completed=position + 1, total=self.per_epoch
        )
        note = f"loss {loss / images:.3f}  accuracy {100 * correct / images:.1f} %  {images / seconds:.0f} images/s"
        self.progress.update(self.step, completed=step + 1, note=note)

    def validated(self, record: dict[str, Any]) -> None:
        if not self.titled:
            self.titled = True
            self.progress.console.print(
                " step  epoch  train loss  train top-1  val loss  val top-1  images/s", style="dim"
            )
        self.progress.console.print(
            f"{record['step']:5d}  {record['epoch']:5.1f}  {record['train_loss']:10.3f}  {record['train_top1']:11.1f}"
            f"  {record['val_loss']:8.3f}  {record['val_top1']:9.1f}  {record['images_per_second']:8.0f}"
        )


def interval(bounds: list[float]) -> str:
    """A confidence interval in percent."""
    return f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def _plain(text: str) -> str:
    """Text whose brackets are not markup."""
    return text.replace("[", "\\[")
