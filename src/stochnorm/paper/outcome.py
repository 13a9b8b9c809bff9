"""The results of an experiment next to the paper's numbers, as lines, Markdown and CSV."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from stochnorm.data import DATASETS
from stochnorm.paper.experiment import INCEPTION_V3, RESNET50, VGG16_BN, Experiment
from stochnorm.paper.published import Published, read_published
from stochnorm.paper.small import NOTE
from stochnorm.runs.records import Record
from stochnorm.spreadsheet import format_csv as rows_as_csv

__all__ = ["Line", "Outcome", "Place", "format_csv", "format_markdown", "lines_of", "show"]

BACKBONE_TITLES = {RESNET50: "ResNet-50", VGG16_BN: "VGG-16", INCEPTION_V3: "Inception-v3"}


class Place(NamedTuple):
    """The data set and the backbone of a run, named as in the experiment."""

    data: str
    backbone: str


class Line(NamedTuple):
    """The results of a variant in a cell next to the paper's, in percent and points."""

    data: str
    backbone: str
    rate: float
    variant: str
    n: int
    """Number of finished runs."""
    mean: float | None
    std: float | None
    """Standard deviation over the runs (n - 1 in the denominator); None for n < 2."""
    paper: Published | None
    gain: float | None = None
    """Mean difference from the first variant over the repetitions that both have; only in figures of gains."""
    gain_std: float | None = None
    """Standard deviation of these differences."""

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's."""
        return None if self.mean is None or self.paper is None else self.mean - self.paper.mean


@dataclass(frozen=True)
class Outcome:
    """The results of an experiment, one line per cell and variant; lines without runs are empty."""

    experiment: Experiment
    lines: list[Line]
    scale: str = "paper"
    """`paper` or `small`."""
    notes: tuple[str, ...] = ()
    """Notes on missing data sets, failed runs and differences from the published data."""

    @property
    def heading(self) -> str:
        """Title, with a label at small scale."""
        return self.experiment.title + (f" ({NOTE})" if self.scale == "small" else "")

    @property
    def score(self) -> str:
        """Name of the score in tables."""
        return self.experiment.score.column


def lines_of(experiment: Experiment, records: Iterable[Record], places: Mapping[tuple[str, str], Place]) -> list[Line]:
    """Return a line for every cell and variant of an experiment, in its order; lines without runs are empty.

    Args:
        experiment: The experiment.
        records: Finished runs.
        places: Place of a run, by its settings `data` and `backbone`.
    """
    values: dict[tuple[Place, float, str], dict[tuple[int, int], float]] = defaultdict(dict)
    for record in records:
        if record.value is not None:
            place = places[record.settings["data"], record.settings["backbone"]]
            values[place, record.rate, record.variant][record.repeat] = record.value
    published = read_published()
    lines = []
    for place in (Place(data, backbone) for data in experiment.data for backbone in experiment.backbones):
        for rate in experiment.rates:
            reference = values[place, rate, experiment.variants[0].label]
            for variant in experiment.variants:
                found = values[place, rate, variant.label]
                mean, std = _mean_and_std(list(found.values()))
                paper = published.get((experiment.name, place.data, variant.label, rate))
                gain: tuple[float | None, float | None] = None, None
                if experiment.figure == "gain" and variant is not experiment.variants[0]:
                    gain = _mean_and_std([found[repeat] - reference[repeat] for repeat in found if repeat in reference])
                lines.append(Line(*place, rate, variant.label, len(found), mean, std, paper, *gain))
    return lines


def show(console: Console, outcome: Outcome) -> None:
    """Print the lines, one table per data set."""
    console.print(f"\n[bold]{outcome.heading}[/]")
    tables: list[Table] = []
    before = ("", 0.0)
    for group, rate, line in _grouped(outcome):
        if group != before[0]:
            tables.append(Table(title=group, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD))
            tables[-1].add_column("rate", justify="right", no_wrap=True)
            tables[-1].add_column("variant", overflow="fold", min_width=15)
            for name in _columns(outcome):
                tables[-1].add_column(name, justify="right", no_wrap=True)
        elif rate != before[1]:
            tables[-1].add_section()
        first = (group, rate) != before
        tables[-1].add_row(f"{rate:g} %" if first else "", line.variant, *_cells(outcome, line))
        before = group, rate
    for each in tables:
        console.print(each)
    for note in _notes(outcome):
        console.print(note, markup=False, style="dim")


def format_markdown(outcome: Outcome) -> str:
    """Format the lines as Markdown, one table per data set."""
    text = [f"# {outcome.heading}", "", *(f"- {note}" for note in _notes(outcome))]
    columns = ["rate", "variant", *_columns(outcome)]
    before = None
    for group, rate, line in _grouped(outcome):
        if group != before:
            text += ["", f"## {group}", "", f"| {' | '.join(columns)} |", "|---:|---|" + "---:|" * (len(columns) - 2)]
        before = group
        text.append(f"| {' | '.join([f'{rate:g} %', line.variant, *_cells(outcome, line)])} |")
    return "\n".join(text) + "\n"


def format_csv(outcome: Outcome) -> str:
    """Format the lines as CSV with all decimals; missing values are empty."""
    columns = ("experiment", "scale", *Line._fields[:7], "paper_mean", "paper_std", "difference", *Line._fields[8:])
    head = outcome.experiment.name, outcome.scale
    lines = ([*head, *line[:7], *(line.paper or (None, None)), line.difference, *line[8:]] for line in outcome.lines)
    return rows_as_csv([columns, *lines])


def _mean_and_std(values: list[float]) -> tuple[float | None, float | None]:
    return fmean(values) if values else None, stdev(values) if len(values) > 1 else None


def _grouped(outcome: Outcome) -> Iterable[tuple[str, float, Line]]:
    """Yield the lines with the title of their table and their rate."""
    several = len(outcome.experiment.backbones) > 1
    for line in outcome.lines:
        backbone = f", {BACKBONE_TITLES[line.backbone]}" if several else ""
        yield DATASETS[line.data].title + backbone, line.rate, line


def _columns(outcome: Outcome) -> list[str]:
    gain = [f"above {outcome.experiment.variants[0].label}"] if outcome.experiment.figure == "gain" else []
    return [f"ours, {outcome.score} %", *gain, "paper", "difference"]


def _cells(outcome: Outcome, line: Line) -> list[str]:
    ours = _number(line.mean, line.std) + (f" ({line.n})" if line.n else "")
    gain = [_number(line.gain, line.gain_std, "+")] if outcome.experiment.figure == "gain" else []
    difference = _number(line.difference, None, "+")
    return [ours, *gain, _number(*(line.paper or (None, None))), difference]


def _number(mean: float | None, std: float | None, sign: str = "") -> str:
    return "-" if mean is None else f"{mean:{sign}.2f}" + ("" if std is None else f" ± {std:.2f}")


def _notes(outcome: Outcome) -> list[str]:
    """Return what a reader of the numbers must know."""
    small = f"{NOTE}. Tiny networks with random weights, few images, two steps: the numbers mean nothing."
    what = "Mean ± standard deviation over (n) runs. A dash means: no finished run, or no number in the paper."
    return [*([small[0].upper() + small[1:]] if outcome.scale == "small" else []), what, *outcome.notes]
