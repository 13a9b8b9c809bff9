"""What the doctor found: a row per layer, as a table, CSV and a figure, and advice."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stochnorm.doctor.advice import advise
from stochnorm.files import write_text
from stochnorm.text import rounded

__all__ = ["Diagnosis", "LayerStatistics", "picture_path"]

# Rules of thumb, not results: see docs/doctor.md. Shift in inherited standard deviations, scale in octaves of the
# variance.
NEAR_SHIFT, FAR_SHIFT = 0.25, 1.0
NEAR_SCALE, FAR_SCALE = 0.5, 2.0


@dataclass(frozen=True)
class LayerStatistics:
    """One normalization layer: the data's statistics of its input against the inherited ones.

    Shifts are in units of the inherited standard deviation, sqrt(running_var + eps); medians are over the channels that
    are not dead, and nan where all are.
    """

    name: str
    channels: int
    shift: float
    """Median of ``|mean of the data - running_mean|``."""
    shift_low: float
    """Its 10th percentile over channels."""
    shift_high: float
    """Its 90th percentile."""
    beyond: float
    """Share of channels with a shift above 1."""
    scale: float
    """Median of ``|log2((variance of the data + eps) / (running_var + eps))|``: 1 is twice or half the variance."""
    noise: float
    """Median standard deviation of the mini-batches' means, in standard deviations of the data themselves: how much
    batch statistics wobble at this batch size."""
    dead: int
    """Channels that did not vary in pre-training (running_var below eps); eps alone holds their moving branch."""
    awake: int
    """Those of them that the moving branch would give a mean beyond 1 or a standard deviation beyond 2."""

    @property
    def far(self) -> bool:
        """The inherited statistics do not fit: a mean off by 1 sigma, or a variance by a factor of 4."""
        return _far(self)

    @property
    def near(self) -> bool:
        """They fit: means within 0.25 sigma and variances within a factor of 1.4."""
        return _near(self)


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`doctor` found."""

    rows: list[LayerStatistics]
    """The layers, in the order of the forward pass."""
    images: int
    batches: int
    subject: str = ""
    """What was looked at: backbone, data, pixels; a title."""
    inherited: bool = True
    """False for random weights, which inherited nothing."""

    @property
    def batch_size(self) -> float:
        """Images a batch."""
        return self.images / self.batches

    @property
    def shift(self) -> float:
        """Median of the layers' shifts."""
        return _median(row.shift for row in self.rows)

    @property
    def scale(self) -> float:
        """Median of the layers' scales."""
        return _median(row.scale for row in self.rows)

    @property
    def noise(self) -> float:
        """Median of the layers' noise."""
        return _median(row.noise for row in self.rows)

    @property
    def far(self) -> bool:
        """The median layer is far, by the rule for a layer."""
        return _far(self)

    @property
    def near(self) -> bool:
        """The median layer is near."""
        return _near(self)

    @property
    def advice(self) -> list[str]:
        """What the numbers suggest about p and freezing, in plain words; rules of thumb, see docs/doctor.md."""
        return advise(self)

    def show(self, console: Console) -> None:
        """Print the table and the advice. Only in a terminal is a layer's name folded, if it is too long for a line."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
        longest = max((len(row.name) for row in self.rows), default=0)
        table.add_column("layer", overflow="fold", min_width=0 if console.is_terminal else longest)
        titles = ("chan-\nnels", "shift,\nsigma", "beyond\n1, %", "scale,\nlog2", "noise,\nsigma", "dead", "awake")
        for title in titles:
            table.add_column(title, justify="right", no_wrap=True)
        for row in self.rows:
            style = "red" if row.far else None if row.near else "yellow"
            values = (rounded(row.shift), f"{100 * row.beyond:.0f}", rounded(row.scale), rounded(row.noise))
            counts = (str(count) if count else "" for count in (row.dead, row.awake))
            table.add_row(Text(row.name), str(row.channels), *values, *counts, style=style)
        console.print()
        console.print(table, crop=False)
        console.print(f"\n{self.images} images in {self.batches} batches", style="dim")
        for line in self.advice:
            # A pattern is copied: no line break of ours within it.
            console.print(f"- {line}", markup=False, soft_wrap="--norm-layers" in line)

    def to_csv(self, path: Path) -> None:
        """Write a line per layer, the fields of :class:`LayerStatistics`; empty where all channels are dead."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(LayerStatistics)], lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: _field(value) for name, value in asdict(row).items()})
        write_text(path, text.getvalue())

    def plot(self, path: Path) -> None:
        """Shift, noise and scale over the layers in order, as PNG and SVG; see :func:`picture_path` for their names."""
        from stochnorm.doctor.plot import plot_diagnosis  # matplotlib: not for a table

        plot_diagnosis(self, picture_path(path))


def picture_path(path: Path) -> Path:
    """The PNG of a picture's name, which may end in .png or .svg, or be a folder.

    Example:
        >>> [str(picture_path(Path(name))) for name in ("fig", "fig.v1", "fig.svg", ".")]
        ['fig.png', 'fig.v1.png', 'fig.png', 'doctor.png']
    """
    if path.is_dir():
        path /= "doctor"
    return path.with_suffix(".png") if path.suffix in (".png", ".svg") else path.with_name(f"{path.name}.png")


def _far(found: LayerStatistics | Diagnosis) -> bool:
    return found.shift >= FAR_SHIFT or found.scale >= FAR_SCALE


def _near(found: LayerStatistics | Diagnosis) -> bool:
    return found.shift < NEAR_SHIFT and found.scale < NEAR_SCALE


def _median(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else math.nan


def _field(value: float | str) -> float | str:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
