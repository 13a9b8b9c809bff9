"""Suggest a learning rate by a range test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Suppress, arg

from stochnorm.cli.options import Overwrite, Preset, RunOptions
from stochnorm.runs.settings import METHOD_HELP

__all__ = ["FindLr"]


@dataclass(frozen=True, kw_only=True)
class FindLrOptions:
    """The options of a range test in addition to the settings of a run."""

    preset: Preset = ""
    sweep_steps: int = 60
    """Steps of the test; the learning rate rises exponentially from one to the next."""
    lowest: float = 1e-5
    """Learning rate of the first step."""
    highest: float = 1.0
    """Learning rate of the last step; the test ends before if the loss is lost."""
    folder: Annotated[str, arg(name="out")] = ""
    """Folder for lr.json, lr.png and lr.svg; empty for none."""


@dataclass(frozen=True)
class FindLr(RunOptions, FindLrOptions):
    """Suggest a learning rate for a method on your images: train some steps while the rate rises. It leaves no run."""

    method: Annotated[str, arg(help=METHOD_HELP)] = "stochnorm"
    lr: Suppress[float] = 0.003  # what is sought
    steps: Suppress[int] = 300  # the next ones are of a whole run
    schedule: Suppress[str] = "step"  # type: ignore[assignment]
    warmup: Suppress[float] = 0.0
    decay_at: Suppress[float] = 0.66
    ema: Suppress[float] = 0.0
    patience: Suppress[int] = 0
    folds: Suppress[int] = 0
    eval_every: Suppress[int] = 0
    select: Suppress[str] = "best"  # type: ignore[assignment]
    ten_crop: Suppress[bool] = False
    out: Suppress[str] = ""
    resume: Suppress[bool] = False
    overwrite: Overwrite = False
    report: Suppress[bool] = False
    log: Suppress[str] = "none"
    compile: Suppress[bool] = False

    def run(self) -> None:
        config = self.config()

        from stochnorm.outputs import PICTURE, RATE, Output

        if self.folder:
            if Path(self.folder).is_file():
                raise ValueError(f"{self.folder} is a file; give a folder for lr.json and lr.png")
            rate = Output(Path(self.folder, "lr.json"), RATE, self.overwrite)
            pictures = [Output(Path(self.folder, f"lr.{end}"), PICTURE, self.overwrite) for end in ("png", "svg")]
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            for output in (rate, *pictures):
                output.check()
        from stochnorm.terminal import Terminal
        from stochnorm.training.find_lr import find_lr
        from stochnorm.training.range_test import RULE

        found = find_lr(config, steps=self.sweep_steps, lowest=self.lowest, highest=self.highest)
        console = Terminal(soft_wrap=True)
        console.print("       lr  loss (median of five)", style="dim")
        console.print("\n".join(found.lines()))
        if self.folder:
            rate.write(found.to_json())
            found.plot(Path(self.folder, "lr"))
            console.print(f"picture: {Path(self.folder, 'lr.png')}", markup=False)
        if found.suggested is None:
            raise ValueError(
                f"the loss was lost after {len(found.losses)} steps, too few to suggest a rate; give a --lowest below "
                f"{self.lowest:g}"
            )
        console.print(f"suggested: --lr {found.suggested:g} ({RULE})", markup=False)
