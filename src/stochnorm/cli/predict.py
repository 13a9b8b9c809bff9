"""Classify images with the model of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from stochnorm.cli.options import RunPath, Strict

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

    def run(self) -> None:
        from stochnorm.files import check_target, write_text

        if self.csv:
            check_target(Path(self.csv))

        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        from stochnorm.evaluation.predict import predict
        from stochnorm.runs.predictions import format_predictions

        predictions = predict(self.model, self.images, ten_crop=self.ten_crop, flip=self.flip, strict=self.strict)
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
