"""The result of the doctor: statistics of each layer, with advice, as a table, CSV and a figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from stochnorm.doctor.advice import advise
from stochnorm.doctor.show import format_rows, picture_path, show_statistics
from stochnorm.doctor.statistics import NetworkStatistics
from stochnorm.files import write_text

__all__ = ["Diagnosis"]


@dataclass(frozen=True)
class Diagnosis(NetworkStatistics):
    """The result of [stochnorm.doctor.diagnose.doctor][]."""

    @property
    def advice(self) -> list[str]:
        """The command that finds the best method, then what the statistics say; see docs/doctor.md."""
        return advise(self)

    def show(self, console: Console, *, layers: int | None = 8) -> None:
        """Print the advice, then a table. In a terminal, a layer's name that is too long for a line is folded.

        Args:
            console: Where to print.
            layers: Number of layers in the table, the farthest first; None for all, in the order of the forward pass.
        """
        show_statistics(self, self.advice, console, layers)

    def to_csv(self, path: Path) -> None:
        """Write a line per layer with the fields of `LayerStatistics`; empty where all channels are dead."""
        write_text(path, format_rows(self.rows))

    def plot(self, path: Path) -> None:
        """Draw shift, noise and scale over the layers, as PNG and SVG.

        Args:
            path: Name of the figure, with or without .png or .svg; or a folder, for doctor.png and doctor.svg in it.
        """
        from stochnorm.doctor.plot import plot_diagnosis  # matplotlib, which a table does not need

        plot_diagnosis(self, picture_path(path))
