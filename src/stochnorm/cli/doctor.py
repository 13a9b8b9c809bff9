"""Commands that look at what there is: a backbone's statistics, methods, data sets, experiments."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stochnorm.methods.catalogue import METHODS

__all__ = ["Doctor", "List"]


@dataclass(frozen=True)
class Doctor:
    """How far the statistics of your images lie from those that a backbone inherited, layer by layer, with advice."""

    backbone: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A name of timm or torchvision; or the directory of a finished run."""
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
    rate: float = 100.0
    """As for finetune: percentage of the training images of each class that are used."""
    split_lists: str = ""
    """As for finetune: a folder with train.txt, in place of sampling."""
    seed: int = 0
    """Of the draw, order and augmentation."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    out: str = "doctor"
    """The picture: this name with .png and .svg; or a folder for it."""
    csv: str = ""
    """Write the table to this file."""

    def run(self) -> None:
        from stochnorm.doctor.show import picture_path
        from stochnorm.files import check_target

        picture = picture_path(Path(self.out))
        for target in (picture, *([Path(self.csv)] if self.csv else [])):
            check_target(target)

        from rich.console import Console

        from stochnorm.doctor.diagnose import diagnose

        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("out", "csv")}
        diagnosis = diagnose(**settings)
        console = Console(highlight=False)
        diagnosis.show(console)
        if self.csv:
            diagnosis.to_csv(Path(self.csv))
        diagnosis.plot(picture)
        console.print(f"picture: {picture}", markup=False, soft_wrap=True)


@dataclass(frozen=True)
class List:
    """List the methods, the data sets that are known in their official formats, or the experiments of the paper."""

    what: Annotated[Literal["methods", "datasets", "experiments"], tyro.conf.Positional]

    def run(self) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD)
        if self.what == "methods":
            for column in ("--method", "what it does", "source"):
                table.add_column(column, no_wrap=column != "what it does")
            for method in METHODS.values():
                options = f"\n[dim]{' '.join(method.options)}[/]" if method.options else ""
                what = f"{method.title}: {method.what}{options}"
                table.add_row(f"[bold]{method.name}[/]", what, method.source)
            note = "Add them up: --method stochnorm+delta+bss. At most one of stochnorm, bin and frozen.\n"
            note += "With any of them: --statistics and --norm-momentum, of the moving statistics."
        elif self.what == "experiments":
            from stochnorm.paper import EXPERIMENTS

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
            from stochnorm.text import tally

            table.add_column("name", no_wrap=True)
            table.add_column("data set", overflow="fold")
            for dataset in DATASETS.values():
                what = f"{dataset.title}: {tally(dataset.counts)}\n[dim]{dataset.licence}\n{dataset.homepage}[/]"
                table.add_row(f"[bold]{dataset.name}[/]", what)
            note = "Give the folder that holds one as DATA; stochnorm verify PATH says whether it is whole."
        console = Console(highlight=False)
        console.print(table)
        console.print(note)
