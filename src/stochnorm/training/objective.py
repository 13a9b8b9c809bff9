"""The loss of a training step: task, auxiliary heads and regularizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from torch import Tensor, nn

from stochnorm.evaluation.tasks import Task
from stochnorm.models import Classifier, pooled
from stochnorm.nn.hooks.taps import InputTap
from stochnorm.regularizers import Regularizer, Step
from stochnorm.training.mixing import Mixing

__all__ = ["Objective", "Terms"]


class Terms(NamedTuple):
    """The terms of the loss of a forward pass."""

    loss: Tensor
    """The whole loss, to run backward from."""
    task_loss: Tensor
    """The loss of the task alone, of the main head."""
    logits: Tensor
    """(b, num_classes)."""
    penalties: dict[str, Tensor]
    """The penalty of each regularizer, its strength included."""


class Objective:
    """The loss of a batch, as a function of the model and the batch.

    Args:
        classifier: Model, head and auxiliary heads. The input of the head is kept if there are regularizers.
        task: The kind of labels, with its loss.
        regularizers: Terms of the loss by name.
        autocast: Context for the precision of the regularizers (DELTA runs its reference).
        processes: Number of processes that share a batch and average their gradients.
        smoothing: Share of each label that is spread over all classes.
        mixing: What mixes the images of a batch; None: nothing.
    """

    def __init__(
        self,
        classifier: Classifier,
        task: Task,
        regularizers: Mapping[str, Regularizer],
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        processes: int = 1,
        *,
        smoothing: float = 0.0,
        mixing: Mixing | None = None,
    ) -> None:
        self.classifier, self.task, self.regularizers, self.autocast = classifier, task, regularizers, autocast
        self.processes, self.smoothing, self.mixing = processes, smoothing, mixing
        self._head = classifier.head_name
        self._tap = InputTap(classifier.model, [self._head]) if regularizers else None

    def __call__(
        self, model: nn.Module, inputs: Tensor, targets: Tensor, share: float = 1.0, *, again: bool = False
    ) -> Terms:
        """Return the terms of a batch, or of a part of it.

        Args:
            model: The classifier's model, or a wrapper of it.
            inputs: (b, 3, s, s), normalized.
            targets: As the task takes them.
            share: Fraction of this process's batch; the gradients of the parts add up to that of the batch.
            again: Whether this is a further pass on the same images.
        """
        if self.mixing is not None:
            inputs = self.mixing.images(inputs)
        logits, auxiliary = self.classifier.outputs(model(inputs))
        task_loss = self._task_loss(logits, targets)
        weight = self.classifier.auxiliary_weight
        loss = share * (task_loss + sum(weight * self._task_loss(output, targets) for output in auxiliary))
        penalties: dict[str, Tensor] = {}
        if self._tap is not None:
            features = pooled(self._tap.values.pop(self._head))
            step = Step(inputs, targets, logits, features, share / self.processes, again)
            with self.autocast():
                penalties = {name: regularizer(step) for name, regularizer in self.regularizers.items()}
            loss = loss + share * sum(penalties.values())
        return Terms(loss, task_loss, logits, penalties)

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the task's score of a batch; of mixed images that of both labels by their shares."""

        def of(labels: Tensor) -> Tensor:
            score = self.task.batch_score(logits, labels)
            assert score is not None  # asked before
            return score

        return of(targets) if self.mixing is None else self.mixing.value(of, targets)

    def _task_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        def of(labels: Tensor) -> Tensor:
            return self.task.loss(logits, labels, smoothing=self.smoothing)

        return of(targets) if self.mixing is None else self.mixing.value(of, targets)

    def stepped(self) -> None:
        """Tell the regularizers that the optimizer has made its step."""
        for regularizer in self.regularizers.values():
            regularizer.stepped()

    def forget(self) -> None:
        """Release what a forward pass of the model left that no step belongs to, such as one for validation."""
        if self._tap is not None:
            self._tap.values.clear()
        for regularizer in self.regularizers.values():
            regularizer.forget()
