"""The loss of a training step: the task's, that of auxiliary heads, and the regularizers'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from torch import Tensor, nn

from stochnorm.evaluation.tasks import Task
from stochnorm.models import Classifier, pooled
from stochnorm.nn.hooks.taps import InputTap
from stochnorm.regularizers import Regularizer, Step

__all__ = ["Objective", "Terms"]


class Terms(NamedTuple):
    """What a forward pass came to."""

    loss: Tensor
    """The whole, to go backward from."""
    task_loss: Tensor
    """The task's alone, of the main head."""
    logits: Tensor
    """(b, num_classes)."""
    penalties: dict[str, Tensor]
    """Of each regularizer, its strength included."""


class Objective:
    """Runs a batch forward and adds up its loss.

    Args:
        classifier: Says head and auxiliary heads. Its model is watched at the head's input if there are regularizers.
        task: The loss.
        regularizers: By name.
        autocast: The precision that regularizers run in (DELTA's reference does).
        processes: That share a batch, and whose gradients are averaged.
    """

    def __init__(
        self,
        classifier: Classifier,
        task: Task,
        regularizers: Mapping[str, Regularizer],
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        processes: int = 1,
    ) -> None:
        self.classifier, self.task, self.regularizers, self.autocast = classifier, task, regularizers, autocast
        self.processes = processes
        self._head = classifier.head_name
        self._tap = InputTap(classifier.model, [self._head]) if regularizers else None

    def __call__(self, model: nn.Module, inputs: Tensor, targets: Tensor, share: float = 1.0) -> Terms:
        """The terms of a batch, or of a part of it.

        Args:
            model: The classifier's model, or what wraps it.
            inputs: (b, 3, s, s), normalized.
            targets: As the task takes them.
            share: Of this process's batch that this part is; gradients of its parts add up to the batch's.
        """
        logits, auxiliary = self.classifier.outputs(model(inputs))
        task_loss = self.task.loss(logits, targets)
        weight = self.classifier.auxiliary_weight
        loss = share * (task_loss + sum(weight * self.task.loss(output, targets) for output in auxiliary))
        penalties: dict[str, Tensor] = {}
        if self._tap is not None:
            features = pooled(self._tap.values.pop(self._head))
            step = Step(inputs, targets, logits, features, share / self.processes)
            with self.autocast():
                penalties = {name: regularizer(step) for name, regularizer in self.regularizers.items()}
            loss = loss + share * sum(penalties.values())
        return Terms(loss, task_loss, logits, penalties)
