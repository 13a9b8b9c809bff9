"""Find what is wrong with images before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from stochnorm.cli.options import Data, Overwrite

__all__ = ["FOUND", "Inspect"]

FOUND = 3
"""Exit status where a finding that `--fail-on` names was found."""


@dataclass(frozen=True)
class Inspect:
    """Look at every image before training: copies across splits and classes, unreadable, blank and blurred images.

    The page with pictures, inspection.html, and all findings, findings.csv, are written into a folder. Exit status: 0,
    whatever is found; 3 if --fail-on names a kind that is found; 1 after an error.
    """

    data: Data
    out: str = ""
    """Folder for the page and the CSV file; empty for inspection/NAME, NAME being that of the data."""
    fail_on: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KIND")] = ()
    """Kinds of findings that make the exit status 3, such as: leak contradiction unreadable; any for all."""
    page: bool = True
    """Write the page, which holds small pictures of the images; the CSV file only has their names."""
    overwrite: Overwrite = False

    def run(self) -> int:
        from stochnorm.data.inspection.findings import KINDS
        from stochnorm.text import some

        unknown = sorted(set(self.fail_on) - {*KINDS, "any"})
        if unknown:
            raise ValueError(
                f"--fail-on: no kind of finding is called {some(unknown)}; the kinds are {', '.join(KINDS)}, any"
            )

        from stochnorm.data.inspection.inspect import inspect_data
        from stochnorm.outputs import FINDINGS, PAGE, Output
        from stochnorm.report.gallery.inspection import format_inspection
        from stochnorm.terminal import Terminal
        from stochnorm.training.display import Display

        inspection = inspect_data(self.data, track=Display().track)
        console = Terminal(soft_wrap=True)
        console.print(str(inspection), markup=False)
        folder = Path(self.out) if self.out else Path("inspection") / inspection.name
        folder.mkdir(parents=True, exist_ok=True)
        outputs = [(Output(folder / "findings.csv", FINDINGS, self.overwrite), inspection.csv)]
        if self.page:
            page = Output(folder / "inspection.html", PAGE, self.overwrite)
            outputs.insert(0, (page, lambda: format_inspection(inspection)))
        for output, _ in outputs:
            output.check()
        for output, text in outputs:
            output.write(text())
            console.print(str(output.path), markup=False)
        return FOUND if inspection.failed(self.fail_on) else 0
