"""Check, download and split data sets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from stochnorm.cli.options import Data
from stochnorm.runs.config import FinetuneConfig

__all__ = ["Download", "Lists", "Verify"]


@dataclass(frozen=True)
class Verify:
    """Check that a data set on disk is complete; compare a published one with its official counts and lists."""

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """Folder of the data set, or a CSV file."""

    def run(self) -> None:
        from stochnorm.data import verify
        from stochnorm.terminal import Terminal

        report = verify(self.path)
        Terminal(soft_wrap=True).print("\n".join(report.lines()), markup=False)
        if not report.ok:
            what = "not the complete official data set" if report.official else "not complete"
            raise ValueError(f"{self.path} is {what}; see above")


@dataclass(frozen=True)
class Download:
    """Download a data set from its official address and verify its checksum."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the data set (see stochnorm ls datasets)."""
    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder to put the data set's folder in."""

    def run(self) -> None:
        from stochnorm.data import download
        from stochnorm.terminal import Terminal

        path = download(self.name, self.root)
        Terminal(soft_wrap=True).print(f"{self.name} is in {path}", markup=False)


@dataclass(frozen=True)
class Lists:
    """Write a split as lists of training, validation and test images, for --split-lists."""

    data: Data
    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder for train.txt, val.txt and test.txt."""
    rate: float = 100.0
    """Percentage of the training images to sample: ceil(rate % of n) of each class with n."""
    val_fraction: float = 0.2
    """Fraction of the sampled training images held out for validation, where DATA has no validation split."""
    test_fraction: float = 0.2
    """Fraction of all images held out for testing, where DATA has no test split."""
    data_seed: int = 0
    """Random seed for the split."""
    test_seed: int | None = None
    """Random seed for the test images, where DATA has no test split; None for --data-seed."""
    pool_val: bool = False
    """Pool the validation images of DATA with the training images before sampling."""

    def run(self) -> None:
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "out"}
        config = FinetuneConfig(**settings)

        from stochnorm.data import check_classes, export_lists, list_images
        from stochnorm.terminal import Terminal
        from stochnorm.text import count
        from stochnorm.training.images import split_rows

        source = list_images(self.data)
        check_classes(source, self.data)
        rows = split_rows(source, config)
        for path in export_lists(rows, Path(self.out)):
            images = count(sum(row.split == path.stem for row in rows), "image")
            Terminal(soft_wrap=True).print(f"{path}: {images}", markup=False)
