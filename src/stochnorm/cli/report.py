"""Write the report of finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from stochnorm.cli.options import Overwrite, Reference

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Write an HTML page about finished runs, and their tables as Markdown, LaTeX and CSV."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")]
    """Run directories, comparison directories and files of records (records.jsonl)."""
    out: str = ""
    """File for the page; empty for report.html in the run's directory, of several in the folder report."""
    title: str = ""
    """Title of the page; empty for one made from the runs."""
    reference: Reference = "vanilla"
    overwrite: Overwrite = False

    def run(self) -> None:
        if not self.runs:
            raise ValueError("no runs given; name run directories, comparison directories or a records.jsonl")

        from stochnorm.report import report
        from stochnorm.terminal import Terminal

        console = Terminal(soft_wrap=True)
        for file in report(self.runs, self.out, title=self.title, reference=self.reference, overwrite=self.overwrite):
            console.print(str(file), markup=False)
