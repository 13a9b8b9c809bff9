"""The command line: ``stochnorm finetune | predict | demo``. The only module that parses arguments."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from stochnorm.config import FinetuneConfig

__all__ = ["main"]


@dataclass(frozen=True)
class Predict:
    """Classify images with the model of a run."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of a finished run, or its model.safetensors."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Image files, and folders of images."""
    csv: str = ""
    """Write class and probabilities of every image to this file."""
    strict: bool = False
    """Stop at an image that cannot be read, instead of leaving it out with a warning."""


@dataclass(frozen=True)
class Demo:
    """Fine-tune on real images with BatchNorm and with StochNorm, and show both side by side."""

    rate: float = 10.0
    """Percentage of the training images of each class."""
    steps: int = 100
    """Training steps of each run."""
    seeds: int = 2
    """Runs per method; the data stay the same."""
    out: str = "runs/demo"
    """Directory of the runs and the picture. Finished runs in it are not repeated."""


Command = (
    Annotated[FinetuneConfig, tyro.conf.subcommand("finetune")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command. Errors are a line on standard error, without a traceback unless STOCHNORM_TRACEBACK is set.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C.
    """
    args = sys.argv[1:] if args is None else list(args)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            errors.print(f"warning: {message}", style="yellow", markup=False)

    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            command: Any = tyro.cli(
                Command,
                prog="stochnorm",
                description="Fine-tune pre-trained ConvNets on small image data sets without over-fitting.",
                args=args,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
            _run(command)
        except KeyboardInterrupt as stop:
            errors.print(str(stop) or "stopped", markup=False)
            if str(stop):
                again = [arg for arg in args if arg not in ("--overwrite", "--resume")]
                again += ["--resume"] if args[0] == "finetune" else []  # the demo goes on by itself
                errors.print(f"go on with: stochnorm {shlex.join(again)}", markup=False)
            return 130
        except Exception as error:
            if os.environ.get("STOCHNORM_TRACEBACK"):
                raise
            expected = isinstance(error, (ValueError, OSError, ArithmeticError))
            text = str(error) if expected else f"{type(error).__name__}: {error}"
            errors.print(f"error: {_one_line(error, text)}", style="red", markup=False)
            return 1
    return 0


def _run(command: FinetuneConfig | Predict | Demo) -> None:
    if isinstance(command, FinetuneConfig):
        from stochnorm.job import finetune

        finetune(command)
    elif isinstance(command, Demo):
        from stochnorm.demo import demo

        demo(rate=command.rate, steps=command.steps, seeds=command.seeds, out=Path(command.out))
    else:
        _predict(command)


def _predict(command: Predict) -> None:
    import torch

    from stochnorm.files import write_text
    from stochnorm.prediction import format_predictions, predict

    predictions = predict(command.run, command.images, strict=command.strict)
    table = Table(box=None, header_style="dim")
    for column in ("image", "class"):
        table.add_column(column, overflow="fold")
    table.add_column("probability", justify="right")
    for prediction in predictions:
        table.add_row(
            *(text.replace("[", "\\[") for text in (str(prediction.path), prediction.label)),
            f"{prediction.probability:.3f}",
        )
    Console(highlight=False).print(table)
    if command.csv:
        classes = list(predictions[0].probabilities)
        probabilities = torch.tensor([list(p.probabilities.values()) for p in predictions])
        write_text(Path(command.csv), format_predictions([str(p.path) for p in predictions], probabilities, classes))


def _one_line(error: Exception, text: str) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        text = f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
