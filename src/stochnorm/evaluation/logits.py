"""Logits of a list of images, and their metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stochnorm.data import Preprocessing, Split
from stochnorm.evaluation.tasks import Task, task_for
from stochnorm.models import Classifier

__all__ = ["evaluate_split", "predict_logits"]


def evaluate_split(
    classifier: Classifier,
    split: Split,
    fabric: Fabric,
    *,
    batch_size: int,
    workers: int = 0,
    ten_crop: bool = False,
    task: Task | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Logits (n, num_classes) and metrics of a split.

    By the bare model: under DDP only one process evaluates, and the wrapper would wait for the others.

    Args:
        classifier: The model, its classes and preprocessing.
        split: Images and labels.
        fabric: Says device and precision.
        batch_size: Images, or crops, at a time.
        workers: Processes that read images.
        ten_crop: See :func:`predict_logits`.
        task: The kind of labels; None is the classifier's, without positive weights.

    Raises:
        FloatingPointError: A logit is not finite.
    """
    task = task or task_for(classifier.classes, classifier.multi_label)
    size = max(batch_size // 10, 1) if ten_crop else batch_size
    batches = split.evaluation_batches(size, workers=workers)
    logits = torch.empty(len(split), len(classifier.classes))  # in place, or they would be held twice in the end
    parts = _logits(classifier.model, batches, classifier.preprocessing, fabric, ten_crop)
    for rows, part in zip(logits.split(size), parts, strict=True):  # type: ignore[no-untyped-call]
        rows.copy_(part)
    groups = split.groups if any(split.groups) else None
    return logits, task.metrics(logits, split.targets, groups=groups)


def predict_logits(
    model: nn.Module, batches: Iterable[Tensor], preprocessing: Preprocessing, fabric: Fabric, *, ten_crop: bool = False
) -> Tensor:
    """Logits in eval mode; the model's ``training`` flag is as before afterwards.

    Args:
        model: Images to logits.
        batches: uint8 (b, 3, resize, resize).
        preprocessing: Crops and normalizes.
        fabric: Says device and precision.
        ten_crop: Average the logits of ten crops, all in one batch, instead of the center's.

    Returns:
        (n, num_classes), float32, on the CPU.
    """
    return torch.cat(list(_logits(model, batches, preprocessing, fabric, ten_crop)))


@torch.no_grad()
def _logits(
    model: nn.Module, batches: Iterable[Tensor], preprocessing: Preprocessing, fabric: Fabric, ten_crop: bool
) -> Iterator[Tensor]:
    """A batch's at a time."""
    training = model.training
    model.eval()
    for images in batches:
        images = images.to(fabric.device)
        crops = preprocessing.ten_crop(images) if ten_crop else preprocessing.center_crop(images)[:, None]
        with fabric.autocast():
            output = model(preprocessing.normalize(crops.flatten(0, 1)))
        yield output.float().unflatten(0, crops.shape[:2]).mean(1).cpu()
    model.train(training)  # not evaluating(), which frozen layers do not hear
