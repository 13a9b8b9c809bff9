"""List runs, and compare the settings of two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Runs"]


@dataclass(frozen=True)
class Runs:
    """List the runs in a folder, or show which settings of two runs differ."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = "runs"
    """Folder with runs, at any depth."""
    sort: Literal["name", "when", "test", "validation", "size"] = "name"
    """Order: by name, or the newest, the best or the largest first."""
    diff: tuple[str, ...] = ()
    """Two runs, or two JSON files of settings: print the settings in which they differ, and their scores."""

    def run(self) -> None:
        if self.diff:
            self._compare()
        else:
            self._list()

    def _list(self) -> None:
        if not Path(self.folder).is_dir():
            raise FileNotFoundError(f"{self.folder}: no such folder; stochnorm finetune makes runs in the folder runs")

        from datetime import datetime

        from rich.markup import escape

        from stochnorm.runs.listing import ORDERS, list_runs
        from stochnorm.terminal import Terminal
        from stochnorm.text import DASH, count, decimals, printable, size

        runs = sorted(list_runs(Path(self.folder)), key=ORDERS[self.sort])
        table = _table("run", "method", "state", right=("val %", "test %", "size", "written"))
        for each in runs:
            written = datetime.fromtimestamp(each.when).strftime("%Y-%m-%d %H:%M") if each.when else DASH
            numbers = decimals(each.validation, 1), decimals(each.test, 1), size(each.bytes), written
            table.add_row(*(escape(printable(text)) for text in (str(each.path), each.method, each.state)), *numbers)
        console = Terminal()
        console.print(table)
        total = sum(each.bytes for each in runs)
        console.print(f"{count(len(runs), 'run')}, {size(total)}; stochnorm clean shows what can be removed")

    def _compare(self) -> None:
        if len(self.diff) != 2:
            raise ValueError(f"--diff compares two runs or files of settings, got {len(self.diff)}; give two")

        from rich.markup import escape

        from stochnorm.runs.listing import differences, list_runs
        from stochnorm.terminal import Terminal
        from stochnorm.text import decimals, printable

        first, second = map(Path, self.diff)
        table = _table("", escape(printable(str(first))), escape(printable(str(second))))
        found = differences(first, second)
        for name, values in found.items():
            table.add_row(name, *(escape(printable(str(value))) for value in values))
        listed = [list_runs(path)[0] if path.is_dir() else None for path in (first, second)]
        for name in ("validation", "test"):
            if any(listed):
                table.add_row(f"{name} %", *(decimals(getattr(each, name, None), 1) for each in listed), style="bold")
        console = Terminal()
        console.print(table)
        if not found:
            console.print("the settings are the same")


def _table(*titles: str, right: tuple[str, ...] = ()) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for title in right:
        table.add_column(title, justify="right", no_wrap=True)
    return table
