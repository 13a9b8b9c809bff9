"""The linear probe of a run: fitted, its strength chosen, and put into the head."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor

from stochnorm.data import Split
from stochnorm.data.folds import folds_of
from stochnorm.evaluation.tasks import Task
from stochnorm.models import Classifier
from stochnorm.training.probe.features import features, linear_head
from stochnorm.training.probe.solver import STRENGTHS, Linear, path

__all__ = ["FEW", "Probe", "Refit", "Tried", "chosen", "fit_probe", "put_into_head"]

Refit = Literal["never", "few", "always"]
"""When the head is fitted once more, on training and validation images: with fewer than `FEW` of them, or always."""

FEW = 300
"""Images for training and validation together, below which the strength is chosen by cross-validation."""
_FOLDS = 5
_CHOICE = "lowest loss within one standard error of the best"
_PATIENCE = 2  # weaker penalties in a row that are worse in score and loss, after which no weaker one is tried


@dataclass(frozen=True)
class Probe:
    """A logistic regression on the features of the frozen backbone, as a head."""

    head: Linear
    """Weight (c, d) and bias (c,) of the head, float32, on the CPU."""
    strength: float
    """C: the inverse of the strength of the L2 penalty, which is chosen."""
    chosen_by: str
    """How: on validation images, or by cross-validation."""
    images: int
    """Number of images that the head is fitted on."""
    fitted_on: str
    """train, or train and validation."""
    views: str
    """Views of each image that it is fitted on: center, flip or crops."""
    seconds: float
    """Time it took, features included."""
    train: dict[str, Any]
    """Metrics on the training images of the head fitted on them."""
    validation: dict[str, Any]
    """Metrics on validation images, always of the head that is fitted on train alone."""

    def facts(self, score: str) -> dict[str, Any]:
        """Return what `result.json` says of the probe."""
        return {
            f"val_{score}": self.validation[score],
            "val_loss": self.validation["loss"],
            "strength": self.strength,
            "chosen_by": self.chosen_by,
            "fitted_on": self.fitted_on,
            "images": self.images,
            "views": self.views,
        }


def fit_probe(
    classifier: Classifier,
    splits: Mapping[str, Split],
    fabric: Fabric,
    task: Task,
    *,
    views: str = "flip",
    batch_size: int = 32,
    refit: Refit = "never",
    seed: int = 0,
) -> Probe:
    """Fit a linear probe: one pass over the training and validation images, then logistic regressions.

    The classifier does not change; [stochnorm.training.probe.probe.put_into_head][] gives its head the solution. With
    several processes the first one computes and the others receive; all of them call it.

    Args:
        classifier: Network with the weights as pre-trained, on its device.
        splits: Images by split: train and val.
        fabric: Device and precision.
        task: The kind of labels, with the weights of classes or of positive images that its loss has.
        views: center, flip (the mirror image too) or crops (ten of them), for the fit; validation is by the center.
        batch_size: Images per batch.
        refit: When the head is fitted on training and validation images; else it is on training images alone, as a
            start for a training must be that validation images judge.
        seed: Random seed of the folds.

    Raises:
        ValueError: The logits of the network are not a linear map of its features.
    """
    linear_head(classifier)
    found = None
    if fabric.is_global_zero:
        found = _fit(classifier, splits, fabric, task, views, batch_size, refit, seed)
    if fabric.world_size > 1:
        found = fabric.broadcast(found)
    assert found is not None
    return found


def put_into_head(classifier: Classifier, head: Linear) -> None:
    """Give the head of a network weight and bias of a probe, in place."""
    layer = linear_head(classifier)
    with torch.no_grad():
        layer.weight.copy_(head.weight.view(layer.weight.shape))
        layer.bias.copy_(head.bias)


class Tried(NamedTuple):
    """What a strength reached on images that its solution has not seen."""

    score: float
    """Percent."""
    loss: float


def chosen(tried: Sequence[Tried], images: int) -> int:
    """Return the index of the lowest loss among the scores within one standard error of the best.

    On a hundred images the best score of several is mostly luck; the loss is far less so.

    Args:
        tried: Score and loss by strength.
        images: Number of images of the scores.

    Example:
        >>> chosen([Tried(50, 3.0), Tried(61, 2.7), Tried(57, 1.6), Tried(40, 1.5)], images=100)
        2
    """
    best = max(each.score for each in tried)
    error = 100 * math.sqrt(best / 100 * (1 - best / 100) / images)
    good = [i for i, each in enumerate(tried) if each.score >= best - error]
    return min(good, key=lambda i: tried[i].loss)


def _fit(
    classifier: Classifier,
    splits: Mapping[str, Split],
    fabric: Fabric,
    task: Task,
    views: str,
    batch_size: int,
    refit: Refit,
    seed: int,
) -> Probe:
    start = time.perf_counter()
    train, val = splits["train"], splits["val"]
    x_train, x_val = (features(classifier, split, fabric, views=views, batch_size=batch_size) for split in (train, val))
    regression = _Regression(task)
    few = len(train) + len(val) < FEW
    both = torch.cat([x_train, x_val], dim=1)
    targets = torch.cat([train.targets, val.targets])
    if few:
        strength = regression.cross_validated(both, targets, [*train.groups, *val.groups], seed)
        head = regression.fit(x_train, train.targets, strength)
    else:
        strength, head = regression.validated(x_train, train.targets, x_val, val)
    metrics = [
        task.metrics(head(x[0]), split.targets, groups=_groups(split)) for x, split in ((x_train, train), (x_val, val))
    ]
    refitted = refit == "always" or (refit == "few" and few)
    head = regression.fit(both, targets, strength) if refitted else head
    return Probe(
        head,
        strength,
        ("cross-validation over train and validation" if few else "validation") + f": {_CHOICE} {task.score_title}",
        both.shape[1] if refitted else len(train),
        "train and validation" if refitted else "train",
        views,
        time.perf_counter() - start,
        *metrics,
    )


class _Regression:
    """Logistic regressions for the labels of a task, and the choice among them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        weights = [getattr(task, name, None) for name in ("pos_weight", "class_weights")]
        self.pos_weight, self.class_weights = (None if weight is None else weight.cpu() for weight in weights)

    def path(self, x: Tensor, y: Tensor, strengths: Sequence[float] = STRENGTHS) -> Iterator[Linear]:
        classes = len(self.task.classes)
        return path(x, y, classes, strengths, pos_weight=self.pos_weight, class_weights=self.class_weights)

    def fit(self, x: Tensor, y: Tensor, strength: float) -> Linear:
        """Return the solution for a strength, along the path to it."""
        *_, head = self.path(x, y, [each for each in STRENGTHS if each <= strength])
        return head

    def validated(self, x: Tensor, y: Tensor, x_val: Tensor, val: Split) -> tuple[float, Linear]:
        """Return the strength whose solution is best on validation images, and the solution."""
        tried: list[Tried] = []
        heads: list[Linear] = []
        for head in self.path(x, y):
            heads.append(head)
            tried.append(self._tried(head(x_val[0]), val.targets, _groups(val)))
            if _worse(tried):
                break
        best = chosen(tried, len(val))
        return STRENGTHS[best], heads[best]

    def cross_validated(self, x: Tensor, y: Tensor, groups: Sequence[str], seed: int) -> float:
        """Return the strength that is best for images which the solution has not seen."""
        smallest = int(torch.bincount(y).min()) if y.ndim == 1 else _FOLDS
        folds = folds_of(y, groups, min(_FOLDS, max(2, smallest)), seed)
        logits = torch.zeros(len(STRENGTHS), len(y), len(self.task.classes))
        for fold in sorted(set(folds.tolist())):
            out = folds == fold
            for number, head in enumerate(self.path(x[:, ~out], y[~out])):
                logits[number, out] = head(x[0, out])
        known = groups if any(groups) else None
        return STRENGTHS[chosen([self._tried(each, y, known) for each in logits], len(y))]

    def _tried(self, logits: Tensor, targets: Tensor, groups: Sequence[str] | None) -> Tried:
        metrics = self.task.metrics(logits, targets, groups=groups)
        score = metrics[self.task.score]
        return Tried(0.0 if score is None else score, metrics["loss"])


def _worse(tried: Sequence[Tried]) -> bool:
    """Return whether the last solutions are all worse than the best, in score and in loss."""
    best, lowest = max(each.score for each in tried), min(each.loss for each in tried)
    return len(tried) > _PATIENCE and all(each.score < best and each.loss > lowest for each in tried[-_PATIENCE:])


def _groups(split: Split) -> list[str] | None:
    return split.groups if any(split.groups) else None
