"""Remove what can be made again."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["Clean"]


@dataclass(frozen=True)
class Clean:
    """Remove caches, and checkpoints of finished runs: show what and how much, then ask. No result is lost."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = "runs"
    """Folder with runs, at any depth."""
    caches: bool = True
    """Include the caches of decoded images, of DELTA's attention and of measured speeds."""
    models: bool = False
    """Include the models of runs of comparisons; their results, predictions and reports stay."""
    yes: bool = False
    """Do not ask."""

    def run(self) -> None:
        from stochnorm.runs.leftovers import leftovers
        from stochnorm.terminal import Terminal
        from stochnorm.text import size

        console = Terminal(soft_wrap=True)
        found = leftovers(Path(self.folder), caches=self.caches, models=self.models)
        if not found:
            console.print("nothing to remove")
            return
        for each in found:
            console.print(f"{size(each.bytes):>8}  {each.what}", markup=False)
        console.print(f"{size(sum(each.bytes for each in found)):>8}  in all", markup=False)
        if not self.yes:
            if not sys.stdin.isatty():
                raise ValueError("nothing was removed, since there is nobody to ask; give --yes")
            if console.input("remove these files? \\[y/N] ").strip().lower() not in ("y", "yes"):
                console.print("nothing was removed")
                return
        console.print(f"removed {size(sum(each.remove() for each in found))}")
