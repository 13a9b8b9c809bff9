"""The two kinds of classification, single-label and multi-label, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from stochnorm.evaluation.metrics import classification_metrics, multilabel_metrics
from stochnorm.runs.scores import MEAN_AUC, TOP1

__all__ = ["MultiLabel", "SingleLabel", "Task", "class_weights_of", "pos_weight_of", "task_for"]


class Task(ABC):
    """A kind of labels: its loss, probabilities, decisions and metrics.

    Attributes:
        classes: Class names in the order of the logits.
        score: Key of the metric that selects models, in percent; higher is better.
        score_title: Name of the score, for people.
    """

    classes: tuple[str, ...]
    score: ClassVar[str]
    score_title: ClassVar[str]

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the training loss, a scalar: the mean over the images.

        Args:
            logits: (b, num_classes).
            targets: The labels.
            smoothing: Share of each label that is spread over all classes; of a finding: over yes and no.
        """

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class, (n, num_classes) like the logits."""

    @abstractmethod
    def batch_score(self, logits: Tensor, targets: Tensor) -> Tensor | None:
        """Return the score of a training batch as a fraction, on its device; None if a batch is too small for it."""

    @abstractmethod
    def decide(self, probabilities: Tensor) -> list[str]:
        """Return the predicted class of each image; with findings, those of probability 0.5 and more, joined by "|"."""

    @abstractmethod
    def metrics(self, logits: Tensor, targets: Tensor, *, groups: Sequence[str] | None = None) -> dict[str, Any]:
        """Compute the metrics of a split, ready for JSON; at least `images`, `loss` and the score.

        Args:
            logits: (n, num_classes), on the CPU.
            targets: The labels, as for the loss.
            groups: Group of each image, such as its patient; empty for an image by itself. None: no image has one.
        """


@dataclass(frozen=True, eq=False)
class SingleLabel(Task):
    """One class per image: cross-entropy, softmax, accuracy. Targets are (n,) class numbers.

    Its metrics are those of [stochnorm.evaluation.metrics.classification_metrics][]; their loss has no weights.

    Args:
        classes: The class names.
        class_weights: (num_classes,): weight of an image of each class in the training loss; None: 1.

    Raises:
        ValueError: The weights are not one positive number per class.

    Example:
        >>> SingleLabel(("cat", "dog")).metrics(torch.tensor([[2.0, 0], [1, 0]]), torch.tensor([0, 1]))["top1"]
        50.0
    """

    score: ClassVar[str] = TOP1.key
    score_title: ClassVar[str] = TOP1.short

    classes: tuple[str, ...]
    class_weights: Tensor | None = None

    def __post_init__(self) -> None:
        _check_weights(self.class_weights, "class_weights", self.classes, "classes")

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        if self.class_weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=smoothing)
        weights = self.class_weights.to(logits, non_blocking=logits.is_cuda)
        # not PyTorch's weighted mean, which divides by the weights of the batch: its parts would not add up
        summed = F.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=smoothing)
        return summed / len(logits)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def batch_score(self, logits: Tensor, targets: Tensor) -> Tensor | None:
        return (logits.argmax(1) == targets).float().mean()

    def decide(self, probabilities: Tensor) -> list[str]:
        return [self.classes[best] for best in probabilities.argmax(1).tolist()]

    def metrics(self, logits: Tensor, targets: Tensor, *, groups: Sequence[str] | None = None) -> dict[str, Any]:
        return classification_metrics(logits, targets, groups=groups)


@dataclass(frozen=True, eq=False)
class MultiLabel(Task):
    """Any number of findings per image: binary cross-entropy, sigmoid, area under the ROC curve.

    Targets are (n, findings) in {0, 1}, of any dtype. Its metrics are those of
    [stochnorm.evaluation.metrics.multilabel_metrics][], with the positive weights in the loss. The score is None for a
    split in which no finding has both positive and negative images.

    Args:
        classes: The findings.
        pos_weight: (findings,): weight of a positive image in the loss, relative to a negative one; None: 1.
        resamples: Number of bootstrap resamples; 0 saves time if nobody needs the intervals, as during training.

    Raises:
        ValueError: The positive weights are not one positive number per finding.

    Example:
        >>> task = MultiLabel(("hernia", "nodule"))
        >>> logits, targets = torch.tensor([[2.0, -1], [0, 1], [1, 0]]), torch.tensor([[1, 0], [0, 1], [0, 0]])
        >>> task.metrics(logits, targets)["per_class"]
        [100.0, 100.0]
    """

    score: ClassVar[str] = MEAN_AUC.key
    score_title: ClassVar[str] = MEAN_AUC.short

    classes: tuple[str, ...]
    pos_weight: Tensor | None = None
    resamples: int = 1000

    def __post_init__(self) -> None:
        _check_weights(self.pos_weight, "pos_weight", self.classes, "findings")

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        if smoothing:
            targets = targets.to(logits) * (1 - smoothing) + smoothing / 2
        weight = None if self.pos_weight is None else self.pos_weight.to(logits, non_blocking=logits.is_cuda)
        return F.binary_cross_entropy_with_logits(logits, targets.to(logits), pos_weight=weight)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def batch_score(self, logits: Tensor, targets: Tensor) -> Tensor | None:
        return None

    def decide(self, probabilities: Tensor) -> list[str]:
        return ["|".join(compress(self.classes, row)) for row in (probabilities >= 0.5).tolist()]

    def metrics(self, logits: Tensor, targets: Tensor, *, groups: Sequence[str] | None = None) -> dict[str, Any]:
        metrics = multilabel_metrics(logits, targets, groups=groups, resamples=self.resamples)
        return metrics | {"loss": float(self.loss(logits.double(), targets))}


def task_for(classes: tuple[str, ...], multi_label: bool) -> Task:
    """Return the task of a trained classifier, without positive weights."""
    return MultiLabel(classes) if multi_label else SingleLabel(classes)


def class_weights_of(labels: Tensor, num_classes: int) -> Tensor:
    """Return the weights that give all classes the same weight in the loss; their mean over the images is 1.

    A class with n_c of the n images has n / (k n_c), where k is the number of classes with images.

    Args:
        labels: (n,) class numbers of the training images.
        num_classes: Number of classes.

    Returns:
        (num_classes,), float32; 1 for a class without images.

    Example:
        >>> class_weights_of(torch.tensor([0, 0, 0, 1]), 2)
        tensor([0.6667, 2.0000])
    """
    counts = labels.bincount(minlength=num_classes).float()
    absent = counts == 0
    return (len(labels) / ((~absent).sum() * counts)).masked_fill(absent, 1.0)


def _check_weights(weights: Tensor | None, name: str, classes: tuple[str, ...], what: str) -> None:
    if weights is not None and (weights.shape != (len(classes),) or not (weights > 0).all()):
        raise ValueError(f"{name} must be a positive number for each of {len(classes)} {what}, got {weights.tolist()}")


def pos_weight_of(targets: Tensor, *, cap: float = 100.0) -> Tensor:
    """Divide the negative by the positive images of each finding, so that both sides have the same weight in the loss.

    Args:
        targets: (n, findings) in {0, 1}, of the training images.
        cap: Maximum weight; otherwise a finding with a few positive images would dominate the gradient.

    Returns:
        (findings,), float32; 1 for a finding without positive or without negative images.

    Example:
        >>> pos_weight_of(torch.tensor([[1, 0], [0, 1], [0, 1], [0, 1]]))
        tensor([3.0000, 0.3333])
    """
    positives = targets.float().sum(0)
    one_sided = (positives == 0) | (positives == len(targets))
    return ((len(targets) - positives) / positives).clamp(max=cap).masked_fill(one_sided, 1.0)
