"""What the page says of single runs, read from their directories; of so many of them as a page can hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from stochnorm.report.page.analysis import (
    ClassScore,
    Mistake,
    Pair,
    calibration,
    class_scores,
    confident_mistakes,
    confused_pairs,
    confusion,
)
from stochnorm.report.page.charts import (
    NAMED,
    Figure,
    Style,
    calibration_figure,
    class_figure,
    confusion_figure,
    curve_figure,
)
from stochnorm.report.page.thumbnails import Album
from stochnorm.runs.config import FinetuneConfig, flat
from stochnorm.runs.directory import Run
from stochnorm.runs.predictions import Predictions, read_predictions
from stochnorm.runs.records import Cell, Record
from stochnorm.runs.scores import SCORES

__all__ = ["MOST", "Details", "Shown", "Thumbnail", "choose", "common", "details_of", "read_history", "show"]

MOST = 100
"""Runs of a page that are shown in detail."""

_LISTED = 6  # of the weakest and the best classes
_TRAINING, _VALIDATION, _REFERENCE = Style("var(--s0)", "circle"), Style("var(--s1)", "circle"), Style("var(--s2)", "")

History = list[dict[str, Any]]


class Shown(NamedTuple):
    """The runs that are shown in detail."""

    records: list[Record]
    rule: str
    """How they were chosen, in words."""


class Thumbnail(NamedTuple):
    """A mistake with its place among the page's images."""

    mistake: Mistake
    image: int | None


@dataclass
class Details:
    """One run; what its directory does not tell is empty, and ``notes`` say why."""

    id: str
    record: Record
    figures: dict[str, Figure] = field(default_factory=dict)
    """``loss``, ``score``, ``classes``, ``confusion``, ``calibration``: those that there are."""
    mistakes: list[Thumbnail] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    scores: list[ClassScore] = field(default_factory=list)
    """Of all classes."""
    weakest: list[ClassScore] = field(default_factory=list)
    strongest: list[ClassScore] = field(default_factory=list)
    method: dict[str, Any] = field(default_factory=dict)
    """What was done to the network."""
    selected: str = ""
    """Which model was kept, and why."""
    settings: list[tuple[str, str, bool]] = field(default_factory=list)
    """Name, value, and whether it is another than the default."""
    left_out: int = 0
    """Images that could not be read."""
    with_reference: bool = False
    """Whether the reference's validation curve stands beside the run's own."""
    history_steps: list[float] = field(default_factory=list)
    history_scores: list[float | None] = field(default_factory=list)
    """Its validations."""
    notes: list[str] = field(default_factory=list)

    @property
    def multi_label(self) -> bool:
        return SCORES[self.record.score].multi_label


def choose(records: Sequence[Record], best: Mapping[Cell, str], reference: str) -> Shown:
    """Which runs to show: the first of each variant of a cell, or if those are too many, of its best and the reference.

    Args:
        records: All.
        best: The variant of the best mean, by cell.
        reference: The variant that others are compared with.
    """
    first: dict[tuple[Cell, str], Record] = {}
    for record in records:
        first.setdefault((record.cell, record.variant), record)
    if len(first) == len(records) <= MOST:
        return Shown(list(first.values()), "")
    if len(first) <= MOST:
        return Shown(list(first.values()), "Of the repeats of a method the first is shown.")
    few = [record for (cell, variant), record in first.items() if variant in (best.get(cell), reference)]
    rule = f"Of {len(records):,} runs the first repeat of the best method and of {reference} is shown"
    if len(few) > MOST:
        rule += f", for the first {MOST} of {len(few):,} of those"
    return Shown(few[:MOST], rule + ".")


def details_of(
    record: Record,
    name: str,
    root: Path,
    album: Album,
    beside: History | None = None,
) -> Details:
    """What the directory of a run tells.

    Args:
        record: The run.
        name: Of its parts in the page.
        root: What the run's directory is relative to.
        album: Takes the images of its mistakes.
        beside: The reference's validations, for its curves.
    """
    run = Run(root / record.run)
    details = Details(name, record, settings=_settings(record))
    try:
        result = run.read_result()
        _add_result(details, result)
    except (OSError, ValueError, KeyError, TypeError):
        details.notes.append(f"The directory {record.run} is gone or damaged, so curves and predictions are missing.")
        return details
    history = read_history(run)
    if history:
        _add_curves(details, history, beside)
    else:
        details.notes.append("metrics.jsonl is gone or damaged: no curves.")
    if record.test is None:
        details.notes.append("There was no test split, so there are no test predictions.")
        return details
    try:
        predictions = read_predictions(run.predictions, multi_label=details.multi_label)
        _add_predictions(details, predictions, result, album)
    except (OSError, ValueError, KeyError, IndexError):
        details.notes.append("test_predictions.csv is gone or damaged: no confusion, calibration and mistakes.")
    if details.mistakes and all(shown.image is None for shown in details.mistakes):
        details.notes.append(f"The images are no longer in {result['config']['data']}: mistakes by name only.")
    return details


def read_history(run: Run) -> History:
    """The validations of a run; none where they are gone or damaged."""
    try:
        history = run.read_metrics()
        return [record for record in history if record["val_loss"] is not None and record["step"] >= 0]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _settings(record: Record) -> list[tuple[str, str, bool]]:
    default = json.loads(json.dumps(flat(asdict(FinetuneConfig("")))))
    return [(name, show(value), value != default.get(name)) for name, value in flat(record.settings).items()]


def show(value: Any) -> str:
    """A setting, for people.

    Example:
        >>> show(None), show(("layer1", "layer2")), show(""), show(0.5), show(0.00094397451)
        ('none', 'layer1, layer2', '-', '0.5', '0.000944')
    """
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value) or "-"


def _add_result(details: Details, result: Mapping[str, Any]) -> None:
    selected = result["selected"]
    details.selected = f"step {selected['step']}, by {selected['by']}"
    details.left_out = result.get("left_out", 0)
    details.method = {k.replace("_", " "): _words(v) for k, v in result.get("method", {}).items() if k != "name"}
    details.method["weights"] = str(result.get("weights", "-"))
    test = result["test"]
    if test and details.multi_label:
        intervals = test.get("per_class_interval") or [None] * len(result["classes"])
        rows = zip(result["classes"], test["per_class"], intervals, test["positives"], strict=True)
        details.scores = [ClassScore(name, value, bounds and tuple(bounds), n) for name, value, bounds, n in rows]
        _add_classes(details)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "-"
    return show(value)


def _add_curves(details: Details, history: History, beside: History | None) -> None:
    score, step = details.record.score, details.record.step
    details.history_steps = [record["step"] for record in history]
    details.history_scores = [record.get(f"val_{score}") for record in history]
    for name in ("loss", score):
        curves: dict[str, tuple[Sequence[float], Sequence[float | None], Style]] = {}
        for title, key, style, records in (
            ("reference, validation", f"val_{name}", _REFERENCE, beside or []),
            ("training", f"train_{name}", _TRAINING, history),
            ("validation", f"val_{name}", _VALIDATION, history),
        ):
            if any(key in record for record in records):
                curves[title] = [r["step"] for r in records], [r.get(key) for r in records], style
        details.with_reference |= "reference, validation" in curves
        figure = curve_figure(curves, step, percent=name == score)
        details.figures["loss" if name == "loss" else "score"] = figure


def _add_predictions(details: Details, predictions: Predictions, result: Mapping[str, Any], album: Album) -> None:
    if not details.multi_label:
        cells = confusion(predictions)
        details.scores = class_scores(cells, predictions.classes)
        details.pairs = confused_pairs(cells, predictions.classes)
        details.figures["confusion"] = confusion_figure(cells, predictions.classes)
        _add_classes(details)
    details.figures["calibration"] = calibration_figure(calibration(predictions, multi_label=details.multi_label))
    data = result["config"]["data"]
    found = confident_mistakes(predictions, multi_label=details.multi_label)
    details.mistakes = [Thumbnail(mistake, album.add(data, mistake.path)) for mistake in found]


def _add_classes(details: Details) -> None:
    details.figures["classes"] = class_figure(details.scores, 50.0 if details.multi_label else 0.0)
    known = sorted((s for s in details.scores if s.value is not None), key=lambda s: s.value or 0.0)
    if len(known) > NAMED:
        details.weakest, details.strongest = known[:_LISTED], known[: -_LISTED - 1 : -1]


def common(settings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What all of several settings have in common."""
    found: dict[str, Any] | None = None
    for one in settings:
        found = dict(one) if found is None else {k: v for k, v in found.items() if k in one and one[k] == v}
    return found or {}
