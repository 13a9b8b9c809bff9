"""One run in detail, read from its directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from stochnorm.methods.auto import within
from stochnorm.methods.catalogue import METHODS
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
from stochnorm.report.page.settings import Setting, settings_of, show
from stochnorm.report.page.thumbnails import Album
from stochnorm.runs.calibration import Bin
from stochnorm.runs.directory import Run
from stochnorm.runs.paths import find_again
from stochnorm.runs.predictions import Predictions, read_predictions
from stochnorm.runs.records import Record
from stochnorm.runs.scores import SCORES
from stochnorm.text import count

__all__ = ["Details", "History", "Thumbnail", "details_of", "read_history"]

History = list[dict[str, Any]]
"""The validations of a run, in order."""


class Thumbnail(NamedTuple):
    """A mistake with its place among the page's images."""

    mistake: Mistake
    image: int | None


@dataclass
class Details:
    """One run; fields that its directory does not tell are empty, and ``notes`` say why."""

    id: str
    record: Record
    settings: list[Setting]
    method: dict[str, str] = field(default_factory=dict)
    """Changes that the method made to the network."""
    kept: list[str] = field(default_factory=list)
    """Which weights are kept, where a method chose them."""
    selected: str = ""
    """The model that is kept, and why it was chosen."""
    left_out: int = 0
    """Number of images that could not be read."""
    history: History = field(default_factory=list)
    reference: History = field(default_factory=list)
    """The reference's validations, for the same chart."""
    classes: list[str] = field(default_factory=list)
    scores: list[ClassScore] = field(default_factory=list)
    """Scores of all classes or findings."""
    confusion: dict[tuple[int, int], int] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    bins: list[Bin] = field(default_factory=list)
    mistakes: list[Thumbnail] = field(default_factory=list)
    auto: dict[str, Any] = field(default_factory=dict)
    """Of method auto: what was tried, which one was chosen, and why."""
    folds: dict[str, Any] = field(default_factory=dict)
    """Of a cross-validation: its parts, their spread, and what the estimate is of."""
    notes: list[str] = field(default_factory=list)

    @property
    def multi_label(self) -> bool:
        """True if an image has any number of labels, instead of one."""
        return SCORES[self.record.score].multi_label


def details_of(record: Record, name: str, root: Path, album: Album, reference: History) -> Details:
    """Read the directory of a run.

    Args:
        record: The run.
        name: Prefix of its parts in the page.
        root: Folder to which the run's directory is relative.
        album: Receives the images of its mistakes.
        reference: Validations of the reference, for the run's curves; may be empty.
    """
    run = Run(root / record.run)
    details = Details(name, record, settings_of(record))
    try:
        result = run.read_result()
        _add_result(details, result)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        details.notes.append(f"The directory {record.run} is missing or damaged: no curves and no predictions.")
        return details
    details.history = read_history(run)
    if details.history:
        details.reference = reference
    else:
        details.notes.append("metrics.jsonl is missing or damaged: no curves.")
    if record.test is None:
        details.notes.append("No test split, so no test predictions.")
        return details
    try:
        predictions = read_predictions(run.predictions, multi_label=details.multi_label)
        _add_predictions(details, predictions, find_again(run.path, result["config"]["data"]), album)
    except (OSError, ValueError, LookupError, TypeError):
        details.notes.append(
            "test_predictions.csv is missing or damaged: no confusion matrix, calibration and mistakes."
        )
    if details.mistakes and all(shown.image is None for shown in details.mistakes):
        details.notes.append(f"The images are no longer in {result['config']['data']}: mistakes are shown by name.")
    return details


def read_history(run: Run) -> History:
    """Return the validations of a run; none if they are gone or damaged."""
    try:
        return [record for record in run.read_metrics() if record["step"] >= 0]
    except (OSError, ValueError):
        return []


def _add_result(details: Details, result: Mapping[str, Any]) -> None:
    details.selected = _selected(result)
    if auto := result.get("auto"):
        details.auto = auto | {"within": within(auto["budget"])}
    details.folds = result.get("folds", {})
    details.left_out = result.get("left_out", 0)
    facts = {k: v for k, v in result.get("method", {}).items() if k != "name"}
    choosing = [name for name, method in METHODS.items() if method.acts_on == "weights" and name in facts]
    details.kept = [METHODS[name].tell(facts.pop(name)) for name in choosing]
    details.method = {k.replace("_", " "): _words(v) for k, v in facts.items()}
    details.method["weights"] = str(result.get("weights", "-"))
    test = result["test"]
    if test and details.multi_label:
        intervals = test.get("per_class_interval") or [None] * len(result["classes"])
        rows = zip(result["classes"], test["per_class"], intervals, test["positives"], strict=True)
        details.scores = [ClassScore(name, value, bounds and tuple(bounds), n) for name, value, bounds, n in rows]


def _selected(result: Mapping[str, Any]) -> str:
    """Return which model was kept, of which training where there were several."""
    chosen, probe, auto = result["selected"], result.get("probe"), result.get("auto")
    kept = f"step {chosen['step']} ({chosen['by']})"
    if not chosen["step"]:
        kept = f"the linear probe, C = {probe['strength']:g}" if probe else "the linear probe"
    if auto:
        title = next((one["title"] for one in auto["tried"] if one["name"] == auto["chosen"]), auto["chosen"])
        of = f"{title}, {kept}" if chosen["step"] else kept
        again = auto.get("refit")
        return f"{of}, chosen on validation images among {count(len(auto['tried']), 'model')} that were tried" + (
            f"; then once more from the start, on all {count(again['images'], 'training and validation image')}"
            if again
            else ""
        )
    if "soup" in result.get("method", {}):
        return f"weights of several trainings; of the best one, whose curves are shown, {kept}"
    return kept


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "-"
    return show(value)


def _add_predictions(details: Details, predictions: Predictions, data: str, album: Album) -> None:
    details.classes = list(predictions.classes)
    if not details.multi_label:
        details.confusion = confusion(predictions)
        details.scores = class_scores(details.confusion, predictions.classes)
        details.pairs = confused_pairs(details.confusion, predictions.classes)
    details.bins = calibration(predictions, multi_label=details.multi_label)
    found = confident_mistakes(predictions, multi_label=details.multi_label)
    details.mistakes = [Thumbnail(mistake, album.add(data, mistake.path)) for mistake in found]
