"""Commands that train one model, and use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stochnorm.cli.options import own_options_first
from stochnorm.runs.config import FinetuneConfig

__all__ = ["Demo", "Evaluate", "Finetune", "Predict", "Tune"]


@own_options_first
@dataclass(frozen=True)
class Finetune(FinetuneConfig):
    """Fine-tune a pre-trained backbone on your images; keep the best model on validation; test it once."""

    settings: str = ""
    """Take the defaults from this JSON file: what stochnorm tune chose, or a run's config.json."""

    def __post_init__(self) -> None:
        """What is out of range is said by run, in one line."""

    def run(self) -> None:
        config = FinetuneConfig(**self.as_fields())
        if self.settings:
            config = config.without_unused()  # of the method in the file, when there is another one beside it

        from stochnorm.training.finetune import finetune

        finetune(config)


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

        if self.csv:
            check_target(Path(self.csv))

        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        from stochnorm.evaluation.predict import predict
        from stochnorm.runs.predictions import format_predictions

        predictions = predict(self.model, self.images, strict=self.strict)
        table = Table(box=None, header_style="dim")
        for column in ("image", "class"):
            table.add_column(column, overflow="fold")
        table.add_column("probability", justify="right")
        for prediction in predictions:
            names = (str(prediction.path), prediction.label or "-")
            table.add_row(*map(escape, names), f"{prediction.probability:.3f}")
        Console(highlight=False).print(table)
        if self.csv:
            paths, labels = [str(p.path) for p in predictions], [p.label for p in predictions]
            probabilities = [list(p.probabilities.values()) for p in predictions]
            text = format_predictions(paths, labels, probabilities, list(predictions[0].probabilities))
            write_text(Path(self.csv), text)


@dataclass(frozen=True)
class Evaluate:
    """Metrics of a run's model on labelled images: the run's own test images, or those of DATA."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of a finished run; with DATA, or its model.safetensors."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")] = ""
    """Labelled images, as for finetune, of some or all of the model's classes."""
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Which images of DATA; auto: those to test on where DATA says which, else all."""
    ten_crop: bool = False
    """Average the logits of ten crops of each image, instead of the center's."""
    csv: str = ""
    """Write label, prediction and probabilities of every image to this file."""
    json: str = ""
    """Write what was evaluated, and the metrics, those of each class too, to this file."""
    strict: bool = False
    """Stop at an image that cannot be read, instead of leaving it out with a warning."""
    batch_size: int = 32
    """Images, or crops, at a time."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """As for finetune."""

    def run(self) -> None:
        from stochnorm.files import check_target, write_text

        for target in filter(None, (self.csv, self.json)):
            check_target(Path(target))

        from stochnorm.evaluation.evaluate import evaluate
        from stochnorm.training.display import Display

        display = Display()
        evaluation = evaluate(
            self.model,
            self.data,
            split=self.split,
            ten_crop=self.ten_crop,
            strict=self.strict,
            batch_size=self.batch_size,
            device=self.device,
            precision=self.precision,
            track=display.track,
        )
        evaluation.show(display.console)
        if self.csv:
            write_text(Path(self.csv), evaluation.predictions_csv())
        if self.json:
            about = {"run": self.model, "data": self.data, "ten_crop": self.ten_crop}
            write_text(Path(self.json), evaluation.metrics_json(**about))


@own_options_first
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
    report: tyro.conf.Suppress[bool] = True  # of what is chosen; trials have none

    def __post_init__(self) -> None:
        """What is out of range is said by run, in one line."""

    def run(self) -> None:
        config = FinetuneConfig(**self.as_fields())
        config.check_used()

        from stochnorm.tuning.tune import tune

        tune(config, trials=self.trials, storage=self.storage, prune=self.prune)


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
        from stochnorm.cli.demo import demo

        demo(rate=self.rate, steps=self.steps, seeds=self.seeds, out=Path(self.out))
