"""Logits of images, and their metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stochnorm.data import Preprocessing, Split
from stochnorm.data.images.stream import send
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
    """Compute the logits (n, num_classes) and the metrics of a split.

    The bare model runs: under DDP only one process evaluates, and the wrapper would wait for the others.

    Args:
        classifier: Model, classes and preprocessing.
        split: Images and labels.
        fabric: Device and precision.
        batch_size: Images, or crops, per batch.
        workers: Number of processes that read images.
        ten_crop: Average the logits of ten crops; see [stochnorm.evaluation.logits.predict_logits][].
        task: Kind of the labels; None: the classifier's, without positive weights.

    Raises:
        FloatingPointError: A logit is not finite.
    """
    task = task or task_for(classifier.classes, classifier.multi_label)
    size = max(batch_size // 10, 1) if ten_crop else batch_size
    batches = split.evaluation_batches(size, workers=workers, device=fabric.device)
    logits = torch.empty(len(split), len(classifier.classes))  # filled in place: a list to join would double the memory
    parts = _logits(classifier.model, batches, classifier.preprocessing, fabric, ten_crop=ten_crop)
    for rows, part in zip(logits.split(size), parts, strict=True):  # type: ignore[no-untyped-call]
        rows.copy_(part)
    groups = split.groups if any(split.groups) else None
    return logits, task.metrics(logits, split.targets, groups=groups)


def predict_logits(
    model: nn.Module, batches: Iterable[Tensor], preprocessing: Preprocessing, fabric: Fabric, *, ten_crop: bool = False
) -> Tensor:
    """Compute logits in eval mode; afterwards the model's `training` flag is as before.

    Args:
        model: Network from images to logits.
        batches: Images uint8 (b, 3, resize, resize).
        preprocessing: Crop and normalization.
        fabric: Device and precision.
        ten_crop: Average the logits of ten crops, all in one batch, instead of using the center crop.

    Returns:
        (n, num_classes), float32, on the CPU.
    """
    return torch.cat(list(_logits(model, batches, preprocessing, fabric, ten_crop=ten_crop)))


@torch.no_grad()
def _logits(
    model: nn.Module, batches: Iterable[Tensor], preprocessing: Preprocessing, fabric: Fabric, *, ten_crop: bool
) -> Iterator[Tensor]:
    """Yield the logits of each batch."""
    training = model.training
    model.eval()
    for batch in batches:
        images = send(batch, fabric.device)
        crops = preprocessing.ten_crop(images) if ten_crop else preprocessing.center_crop(images)[:, None]
        with fabric.autocast():
            output = model(preprocessing.normalize(crops.flatten(0, 1)))
        yield output.float().unflatten(0, crops.shape[:2]).mean(1).cpu()
    model.train(training)  # not evaluating(), which frozen layers do not hear
