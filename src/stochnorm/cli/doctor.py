"""Compare the statistics of images with those that a backbone inherited."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from stochnorm.cli.options import Data, Device, Overwrite

__all__ = ["Doctor"]

SHOWN = ("all", "out", "csv", "overwrite")  # what is shown and written, not what is measured


@dataclass(frozen=True)
class Doctor:
    """Compare the statistics of your images with those that a backbone inherited, layer by layer."""

    backbone: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Name of a timm or torchvision model, or the directory of a finished run."""
    data: Data
    weights: str = "auto"
    """Weights of the backbone: auto, bundled, pretrained, random, a file or a run directory."""
    image_size: int = 0
    """Side of the network's input, pixels; 0 for that of the backbone's weights."""
    batch_size: int = 32
    """Images per step of the training that you plan."""
    max_images: int = 512
    """Maximum number of training images to sample."""
    rate: float = 100.0
    """Percentage of the training images of each class to use."""
    split_lists: str = ""
    """Folder with train.txt, instead of sampling."""
    seed: int = 0
    """Random seed for sampling, order and augmentation."""
    device: Device = "auto"
    all: bool = False
    """Show all layers, in the order of the network, instead of the eight farthest."""
    out: str = ""
    """Path of a picture without its ending (.png and .svg are written), or a folder for it; empty for none."""
    csv: str = ""
    """CSV file for the table."""
    overwrite: Overwrite = False

    def run(self) -> None:
        from stochnorm.doctor.show import format_rows, picture_path
        from stochnorm.outputs import LAYERS, PICTURE, Output

        picture = picture_path(self.out) if self.out else None
        table = Output(Path(self.csv), LAYERS, self.overwrite) if self.csv else None
        if table is not None:
            table.check()
        if picture is not None:
            for file in (picture, picture.with_suffix(".svg")):
                Output(file, PICTURE, self.overwrite).check()

        from stochnorm.doctor.diagnose import diagnose
        from stochnorm.terminal import Terminal

        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in SHOWN}
        diagnosis = diagnose(**settings)
        console = Terminal()
        diagnosis.show(console, layers=None if self.all else 8)
        if table is not None:
            table.write(format_rows(diagnosis.rows))
        if picture is not None:
            diagnosis.plot(picture)
            console.print(f"picture: {picture}", markup=False, soft_wrap=True)
