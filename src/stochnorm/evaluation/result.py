"""The result of an evaluation."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from torch import Tensor

from stochnorm.data import Split
from stochnorm.evaluation.table import class_table, metrics_table, warning_of
from stochnorm.evaluation.tasks import Task
from stochnorm.runs.predictions import format_confusion, format_predictions
from stochnorm.text import interval

__all__ = ["Evaluation"]

_MOST_CONFUSED = 1000  # maximum number of classes of a confusion matrix, which grows with their square
_WORST = 10  # number of classes to show


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of a model on labelled images, and its prediction for each image."""

    split: str
    """Name of the split: train, val, test, or all."""
    metrics: dict[str, Any]
    """Metrics in percent, ready for JSON; see `classification_metrics` and `multilabel_metrics` of
    [stochnorm.evaluation.metrics][]."""
    classes: tuple[str, ...]
    """Class names in the order of the probabilities."""
    paths: list[str]
    """Paths of the n images, relative to the root of the data."""
    truth: list[str]
    """Label of each image; findings are joined by "|"."""
    predicted: list[str]
    """Predicted label of each image."""
    probabilities: Tensor
    """Probabilities of the classes, (n, num_classes), float32."""
    multi_label: bool
    """True if an image has any number of classes instead of one."""

    @classmethod
    def of(cls, name: str, split: Split, task: Task, logits: Tensor, metrics: dict[str, Any]) -> Evaluation:
        """Make the result of a split, called `name`, from its logits (n, num_classes)."""
        probabilities = task.probabilities(logits)
        truth = [split.store.rows[i].label for i in split.indices]
        predicted = task.decide(probabilities)
        return cls(name, metrics, task.classes, split.paths, truth, predicted, probabilities, split.multi_label)

    def predictions_csv(self) -> str:
        """Format a line per image: path, label, predicted class, its probability, and that of each class."""
        return format_predictions(self.paths, self.predicted, self.probabilities.tolist(), self.classes, self.truth)

    def confusion_csv(self) -> str:
        """Format a row per true class and a column per predicted one; empty if multi-label or over 1,000 classes."""
        if self.multi_label or len(self.classes) > _MOST_CONFUSED:
            return ""
        return format_confusion(self.truth, self.predicted, self.classes)

    def metrics_json(self, **about: Any) -> str:
        """Format the split, the classes and the metrics as JSON; those of each class have the same order.

        Args:
            about: Further values to write first, such as run and data; JSON.
        """
        content = {**about, "split": self.split, "classes": self.classes, **self.metrics}
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def show(self, console: Console) -> None:
        """Print the metrics, and the classes with the lowest scores."""
        console.print(metrics_table({self.split: self.metrics}))
        if warning := warning_of(self.metrics):
            console.print(f"warning: {warning}", style="yellow", highlight=False)
        scores = self.metrics["per_class"]
        scored = sorted((i for i, score in enumerate(scores) if score is not None), key=lambda i: scores[i])
        titles = ("positive", "AUC %") if self.multi_label else ("images", "correct %", "precision %", "F1 %")
        last = "95 % interval" if self.multi_label else "most often confused with"
        rows = []
        for i in scored[:_WORST]:
            images, remark = self._finding(i) if self.multi_label else self._class(i)
            more = () if self.multi_label else (self.metrics["per_class_precision"], self.metrics["per_class_f1"])
            numbers = (f"{values[i]:.1f}" for values in (scores, *more))
            rows.append((self.classes[i], str(images), *numbers, remark))
        console.print(class_table("worst classes" if len(scored) > _WORST else "class", titles, last, rows))

    def _finding(self, i: int) -> tuple[int, str]:
        """Count the positive images of a finding, and format the interval of its AUC."""
        bounds = self.metrics["per_class_interval"][i]
        return self.metrics["positives"][i], interval(bounds) if bounds else "-"

    def _class(self, i: int) -> tuple[int, str]:
        """Count the images of a class, and name the class that they are most often confused with."""
        guesses = [p for label, p in zip(self.truth, self.predicted, strict=True) if label == self.classes[i]]
        wrong = Counter(sorted(guess for guess in guesses if guess != self.classes[i])).most_common(1)
        return len(guesses), "".join(f"{name} ({count})" for name, count in wrong) or "-"
