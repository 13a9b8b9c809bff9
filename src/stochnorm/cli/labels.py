"""Find wrong labels by what a model predicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stochnorm.cli.options import Overwrite, RunPath

__all__ = ["Labels"]


@dataclass(frozen=True)
class Labels:
    """Show the images whose label a cross-validated run finds least likely, and write a CSV file to correct them in.

    The run should be one of finetune --folds, which predicts every image by a model that has not seen it.
    """

    model: RunPath
    """Directory of a finished run."""
    out: str = ""
    """Folder for the page labels.html and for labels.csv; empty for the run's directory."""
    overwrite: Overwrite = False

    def run(self) -> None:
        from stochnorm.outputs import LABELS, PAGE, Output
        from stochnorm.report.gallery.labels import format_doubts
        from stochnorm.runs.directory import Run
        from stochnorm.runs.doubts import doubts_of
        from stochnorm.terminal import Terminal

        run = Run(Path(self.model))
        folder = Path(self.out) if self.out else run.path
        page = Output(folder / "labels.html", PAGE, self.overwrite)
        table = Output(folder / "labels.csv", LABELS, self.overwrite)
        doubts = doubts_of(run)
        folder.mkdir(parents=True, exist_ok=True)
        for output in (page, table):
            output.check()
        page.write(format_doubts(doubts))
        table.write(doubts.manifest())
        console = Terminal(soft_wrap=True)
        console.print(str(doubts), markup=False)
        console.print(f"{page.path}\n{table.path}", markup=False)
        console.print(
            f"correct labels.csv, copy it to {doubts.source.root}, and train: stochnorm finetune "
            f"{doubts.source.root / 'labels.csv'}",
            markup=False,
        )
