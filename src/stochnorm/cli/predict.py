"""Classify images with the model of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from stochnorm.cli.options import Overwrite, RunPath, Strict

__all__ = ["Predict"]


@dataclass(frozen=True)
class Predict:
    """Classify images with the model of a run."""

    model: RunPath
    """Directory of a finished run, or its model.safetensors."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Image files and folders of images."""
    csv: str = ""
    """CSV file for the class and the probabilities of every image."""
    ten_crop: bool = False
    """Average the logits of ten crops of each image, instead of using the center crop."""
    flip: bool = False
    """Average the logits of each image and its mirror image, also if the run did not."""
    strict: Strict = False
    overwrite: Overwrite = False

    def run(self) -> None:
        from stochnorm.outputs import PREDICTIONS, Output

        written = Output(Path(self.csv), PREDICTIONS, self.overwrite)
        if self.csv:
            written.check()

        from rich.markup import escape
        from rich.table import Table

        from stochnorm.evaluation.predict import predict
        from stochnorm.runs.predictions import format_predictions
        from stochnorm.terminal import Terminal
        from stochnorm.text import printable

        predictions = predict(self.model, self.images, ten_crop=self.ten_crop, flip=self.flip, strict=self.strict)
        table = Table(box=None, header_style="dim")
        for column in ("image", "class"):
            table.add_column(column, overflow="fold")
        table.add_column("probability", justify="right")
        for prediction in predictions:
            names = map(printable, (str(prediction.path), prediction.label or "-"))
            table.add_row(*map(escape, names), f"{prediction.probability:.3f}")
        Terminal().print(table)
        if self.csv:
            paths, labels = [str(p.path) for p in predictions], [p.label for p in predictions]
            probabilities = [list(p.probabilities.values()) for p in predictions]
            text = format_predictions(paths, labels, probabilities, list(predictions[0].probabilities))
            written.write(text)
