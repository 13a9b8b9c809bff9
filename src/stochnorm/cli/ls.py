"""List what there is to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["List"]


@dataclass(frozen=True)
class List:
    """List the methods, the presets, the known data sets or the paper's experiments."""

    what: Annotated[Literal["methods", "presets", "datasets", "experiments"], tyro.conf.Positional]
    """Catalogue to list."""

    def run(self) -> None:
        from stochnorm.terminal import Terminal

        tables = {"methods": _methods, "presets": _presets, "datasets": _datasets, "experiments": _experiments}
        table, note = tables[self.what]()
        console = Terminal()
        console.print(table)
        console.print(note)


def _methods() -> tuple[Table, str]:
    from stochnorm.methods.catalogue import METHODS

    table = _table()
    for column in ("--method", "what it does", "source"):
        table.add_column(column, no_wrap=column != "what it does")
    for method in METHODS.values():
        options = f"\n[dim]{' '.join(method.options)}[/]" if method.options else ""
        table.add_row(f"[bold]{method.name}[/]", f"{method.title}: {method.what}{options}", method.source)
    note = "Combine methods with +: --method stochnorm+delta+bss. At most one of stochnorm, bin and frozen, and one\n"
    note += "of wise and soup. Every method takes --statistics and --norm-momentum (moving statistics)."
    return table, note


def _presets() -> tuple[Table, str]:
    from stochnorm.runs.presets import PRESETS

    table = _table()
    table.add_column("--preset", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for name, preset in PRESETS.items():
        options = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in preset.settings.items())
        table.add_row(f"[bold]{name}[/]", f"{preset.what}\n[dim]{options}[/]")
    note = "A preset gives defaults; each option beside it counts more: --preset gentle --lr 0.002."
    return table, f"{note}\nIn one method of a comparison: --methods vanilla,stochnorm:preset=gentle."


def _datasets() -> tuple[Table, str]:
    from stochnorm.data import DATASETS
    from stochnorm.text import tally

    table = _table()
    table.add_column("name", no_wrap=True)
    table.add_column("data set", overflow="fold")
    for dataset in DATASETS.values():
        what = f"{dataset.title}: {tally(dataset.counts)}\n[dim]{dataset.licence}\n{dataset.homepage}[/]"
        table.add_row(f"[bold]{dataset.name}[/]", what)
    return table, "Pass the data set's folder as DATA. To check that it is complete: stochnorm verify PATH."


def _experiments() -> tuple[Table, str]:
    from stochnorm.paper.catalogue import EXPERIMENTS

    table = _table()
    for column in ("name", "what it reproduces"):
        table.add_column(column, no_wrap=column == "name")
    for column in ("runs", "hours, GPU"):
        table.add_column(column, justify="right", no_wrap=True)
    for experiment in EXPERIMENTS.values():
        table.add_row(f"[bold]{experiment.name}[/]", experiment.title, str(experiment.runs), f"{experiment.hours}")
    note = "Run one with: stochnorm paper NAME --data-root FOLDER. Hours are estimates for one A100; runs that "
    note += "two experiments share are counted in both. With --scale small: minutes on a CPU, no result."
    return table, note


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD)
