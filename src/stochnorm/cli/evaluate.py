"""Evaluate the model of a run on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stochnorm.cli.options import Device, Overwrite, RunPath, Strict

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a run's model on its test images or on other labelled images."""

    model: RunPath
    """Directory of a finished run; with DATA, also its model.safetensors."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")] = ""
    """Labelled images, in a layout that finetune reads; empty for the run's test images."""
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Split of DATA to evaluate; auto: test where DATA has a test split, else all."""
    ten_crop: bool = False
    """Average the logits of ten crops of each image, instead of using the center crop."""
    flip: bool = False
    """Average the logits of each image and its mirror image, also if the run did not."""
    csv: str = ""
    """CSV file for the label, prediction and probabilities of every image."""
    json: str = ""
    """JSON file for the metrics, overall and per class, and for what was evaluated."""
    strict: Strict = False
    overwrite: Overwrite = False
    batch_size: int = 32
    """Images, or crops, per batch."""
    device: Device = "auto"
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """Precision (autocast).
    auto: bf16 where the hardware supports it and, on a CPU, takes at most 1.1 times as long as 32; else 32."""

    def run(self) -> None:
        from stochnorm.outputs import METRICS, PREDICTIONS, Output

        table = Output(Path(self.csv), PREDICTIONS, self.overwrite)
        numbers = Output(Path(self.json), METRICS, self.overwrite)
        for given, output in ((self.csv, table), (self.json, numbers)):
            if given:
                output.check()
        if self.csv and self.json and table.path.resolve() == numbers.path.resolve() and not table.streams:
            raise ValueError(f"--csv and --json both name {self.csv}; give two files")

        from stochnorm.evaluation.evaluate import evaluate
        from stochnorm.training.display import Display

        display = Display()
        evaluation = evaluate(
            self.model,
            self.data,
            split=self.split,
            ten_crop=self.ten_crop,
            flip=self.flip,
            strict=self.strict,
            batch_size=self.batch_size,
            device=self.device,
            precision=self.precision,
            track=display.track,
        )
        evaluation.show(display.console)
        if self.csv:
            table.write(evaluation.predictions_csv())
        if self.json:
            about = {"run": self.model, "data": self.data, "ten_crop": self.ten_crop, "flip": self.flip}
            numbers.write(evaluation.metrics_json(**about))
