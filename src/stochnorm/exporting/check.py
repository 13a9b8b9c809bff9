"""The check of an exported file: does it predict what the run predicts?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stochnorm.evaluation.tasks import MultiLabel, Task, task_for
from stochnorm.exporting.images import Images
from stochnorm.exporting.runtime import Model, latency
from stochnorm.models import Classifier
from stochnorm.text import count

__all__ = ["TOLERANCE", "Check", "Reference", "compare", "fault_of"]

TOLERANCE = {"fp32": 1e-3, "fp16": 0.1, "int8": 1.0}
"""Largest difference of a probability from the run's; fp16 and int8 are judged by their score too, int8 by it alone."""

_BATCH = 32


@dataclass(frozen=True)
class Check:
    """What came out on the images of the run."""

    images: int
    split: str
    difference: float
    """Largest difference of a probability from the run's."""
    agreement: float
    """Images with the run's prediction, percent: the most probable class, or exactly the same findings."""
    score: float | None
    """Top-1 or mean AUC of the file, percent; None where a split has no AUC."""
    change: float | None
    """That score minus the run's, points."""
    latency: float
    """Median time of one image, milliseconds."""
    pixels: float | None = None
    """With the preprocessing in the graph: mean difference of a pixel from the run's, of 255."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The run's own predictions."""

    images: Images
    task: Task
    probabilities: Tensor
    score: float | None
    recorded: int | None
    """Images whose class is the one in the run's `test_predictions.csv`; None without the file."""

    @classmethod
    def of(cls, images: Images, classifier: Classifier, recorded: list[str] | None) -> Reference:
        """Compute the predictions in float32, as `stochnorm evaluate --precision 32` does."""
        task = task_for(classifier.classes, classifier.multi_label)
        probabilities = task.probabilities(images.logits(classifier))
        decided = task.decide(probabilities)
        same = None if recorded is None else sum(a == b for a, b in zip(decided, recorded, strict=True))
        return cls(images, task, probabilities, _score(task, probabilities, images.targets), same)


@torch.no_grad()
def compare(model: Model, reference: Reference, *, raw: bool, squares: Callable[[Tensor], Tensor] | None) -> Check:
    """Compare a file with the run.

    Args:
        model: The opened file.
        reference: The run's predictions.
        raw: Whether the file takes raw images, of which each has its own size.
        squares: With `raw`, the preprocessing alone, for the pixels.
    """
    images = reference.images
    count_of = len(images.store)
    apart = None
    if raw:
        one = images.raw(0)
        parts = [model(images.raw(i)) for i in range(count_of)]
        if squares is not None:
            wanted = images.preprocessing
            away = [
                (squares(images.raw(i))[0] - wanted.center_crop(images.store[i]).float()).abs().mean()
                for i in range(count_of)
            ]
            apart = float(torch.stack(away).mean())
    else:
        inputs = images.inputs()
        one = inputs[:1]
        parts = [model(inputs[first : first + _BATCH]) for first in range(0, count_of, _BATCH)]
    probabilities = torch.cat([torch.as_tensor(part) for part in parts])
    task = reference.task
    decided, wanted_classes = task.decide(probabilities), task.decide(reference.probabilities)
    same = sum(a == b for a, b in zip(decided, wanted_classes, strict=True))
    score = _score(task, probabilities, images.targets)
    return Check(
        count_of,
        images.split,
        float((probabilities - reference.probabilities).abs().max()),
        100 * same / count_of,
        score,
        None if score is None or reference.score is None else score - reference.score,
        latency(model, one),
        apart,
    )


def fault_of(check: Check, precision: str, *, raw: bool, max_drop: float) -> str:
    """Return what is wrong with a file; empty if nothing is."""
    allowed = 1.0 if raw else TOLERANCE[precision]  # raw: other pixels; the graph has been compared with PyTorch's
    if not check.difference <= allowed:
        return (
            f"its probabilities differ from the run's by up to {check.difference:.2g} (allowed: {allowed:g}) on "
            f"{count(check.images, f'{check.split} image')}"
        )
    if check.change is not None and check.change < -max_drop:
        return (
            f"it scores {-check.change:.1f} points less than the run on {count(check.images, f'{check.split} image')} "
            f"(allowed: {max_drop:g}, --max-drop)"
        )
    return ""


def _score(task: Task, probabilities: Tensor, targets: Tensor) -> float | None:
    if isinstance(task, MultiLabel):
        task = MultiLabel(task.classes, resamples=0)
        logits = torch.logit(probabilities.double(), eps=1e-12)
    else:
        logits = probabilities.double().clamp_min(1e-30).log()
    score: float | None = task.metrics(logits, targets)[task.score]
    return score
