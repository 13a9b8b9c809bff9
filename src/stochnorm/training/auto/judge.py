"""The validation images, which all candidates are judged on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from stochnorm.evaluation.logits import evaluate_split
from stochnorm.runs.scores import TOP1
from stochnorm.training.auto.choose import auc_error, calibrated_loss, paired_error
from stochnorm.training.job import Job

__all__ = ["Judge", "Verdict"]


class Verdict(NamedTuple):
    """How a model does on the validation images."""

    score: float
    loss: float
    """What decides where scores do not; lower is better."""
    logits: Tensor
    """(n, num_classes)."""


class Judge:
    """Scores models on the validation images of a job, and says how certain a difference is.

    Args:
        job: A job without method; its model is overwritten.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        split = job.splits["val"]
        self.images = len(split)
        self.device = job.fabric.device
        self._targets = torch.as_tensor(split.targets)
        self._groups = split.groups if any(split.groups) else None

    def verdict(self, state: Mapping[str, Tensor]) -> Verdict:
        """Judge the weights of a model: by accuracy and loss; by the mean AUC alone, which is less a matter of luck."""
        job = self._job
        job.classifier.model.load_state_dict(state)
        logits, metrics = evaluate_split(
            job.classifier, job.splits["val"], job.fabric, batch_size=job.config.batch_size, task=job.task
        )
        score = float(metrics[job.task.score])
        loss = calibrated_loss(logits, self._targets) if job.task.score == TOP1.key else -score
        return Verdict(score, loss, logits)

    def error(self, first: Tensor, second: Tensor) -> float:
        """Return the standard error of the difference of two models' scores, from their logits, percentage points."""
        if self._job.task.score == TOP1.key:
            right = [logits.argmax(1) == self._targets for logits in (first, second)]
            return paired_error(right[0], right[1], self._groups)
        return auc_error(first, second, self._targets, self._groups)

    @property
    def guessing(self) -> float:
        """The score of a model that has learned nothing, percent: the share of the largest class, or an AUC of 50."""
        if self._job.task.score == TOP1.key:
            return 100 * float(self._targets.bincount().max()) / self.images
        return 50.0
