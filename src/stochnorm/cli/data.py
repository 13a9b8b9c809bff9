"""Commands on data sets on disk."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from stochnorm.runs.config import FinetuneConfig

__all__ = ["Download", "Lists", "Verify"]


@dataclass(frozen=True)
class Verify:
    """Say what a data set on disk holds and lacks, beside the official counts and lists of a published one."""

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """Its folder, or a CSV file."""

    def run(self) -> None:
        from rich.console import Console

        from stochnorm.data import verify

        report = verify(self.path)
        Console(highlight=False, soft_wrap=True).print("\n".join(report.lines()), markup=False)
        if not report.ok:
            what = "not the whole official data set" if report.official else "not whole"
            raise ValueError(f"{self.path} is {what}; see above")


@dataclass(frozen=True)
class Download:
    """Download a data set from its official address, with a checksum."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """As in stochnorm ls datasets."""
    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where its folder goes."""

    def run(self) -> None:
        from rich.console import Console

        from stochnorm.data import download

        path = download(self.name, self.root)
        Console(highlight=False, soft_wrap=True).print(f"{self.name} is in {path}", markup=False)


@dataclass(frozen=True)
class Lists:
    """Write which images train, validate and test, one list a split, for others to use with --split-lists."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """As for finetune."""
    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where train.txt, val.txt and test.txt go."""
    rate: float = 100.0
    """Use only this percentage of the training images: ceil(rate % of n) of each class with n."""
    val_fraction: float = 0.2
    """Share of the sampled training images that validate, where DATA has no validation split."""
    test_fraction: float = 0.2
    """Share of all images that test, where DATA has no test split."""
    data_seed: int = 0
    """Which images are sampled and split off."""
    pool_val: bool = False
    """Pool the validation images of DATA with the training images before sampling."""

    def run(self) -> None:
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("out",)}
        config = FinetuneConfig(**settings)

        from rich.console import Console

        from stochnorm.data import export_lists, read_source
        from stochnorm.training.images import split_rows

        rows = split_rows(read_source(self.data, images=False), config)
        for path in export_lists(rows, Path(self.out)):
            count = sum(row.split == path.stem for row in rows)
            Console(highlight=False, soft_wrap=True).print(f"{path}: {count} images", markup=False)
