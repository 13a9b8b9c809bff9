"""Logits of a list of images, and the metrics of logits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning_fabric import Fabric
from scipy.stats import binomtest
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_stat_scores

from stochnorm.data import Preprocessing, Split
from stochnorm.models import Classifier

__all__ = ["classification_metrics", "evaluate", "predict_logits"]


def evaluate(
    classifier: Classifier, split: Split, fabric: Fabric, *, batch_size: int, workers: int = 0, ten_crop: bool = False
) -> tuple[Tensor, dict[str, Any]]:
    """Logits (n, num_classes) and metrics of a split.

    By the bare model: under DDP only one process evaluates, and the wrapper would wait for the others.
    """
    size = max(batch_size // 10, 1) if ten_crop else batch_size
    batches = split.evaluation_batches(size, workers=workers)
    logits = predict_logits(classifier.model, batches, classifier.preprocessing, fabric, ten_crop=ten_crop)
    return logits, classification_metrics(logits, torch.tensor(split.labels))


@torch.no_grad()
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
    training = model.training
    model.eval()
    logits = []
    for images in batches:
        images = images.to(fabric.device)
        crops = preprocessing.ten_crop(images) if ten_crop else preprocessing.center_crop(images)[:, None]
        with fabric.autocast():
            output = model(preprocessing.normalize(crops.flatten(0, 1)))
        logits.append(output.float().unflatten(0, crops.shape[:2]).mean(1).cpu())
    model.train(training)
    return torch.cat(logits)


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Loss, top-1 and mean per class accuracy, and a 95 % interval of top-1.

    Args:
        logits: (n, num_classes).
        labels: (n,), int64.

    Returns:
        ``loss`` (cross-entropy), ``top1``, ``mean_per_class`` (over the classes that have images) in percent,
        ``top1_interval`` (Wilson's score interval of the n images as a sample), ``per_class`` (None where a class
        has no image), ``images``.
    """
    num_classes = logits.size(1)
    per_class = multiclass_accuracy(logits, labels, num_classes, average=None)
    support = multiclass_stat_scores(logits, labels, num_classes, average=None)[:, 4]
    correct = int((logits.argmax(1) == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
    return {
        "images": len(labels),
        "loss": float(nn.functional.cross_entropy(logits, labels)),
        "top1": 100 * correct / len(labels),
        "top1_interval": [100 * float(interval.low), 100 * float(interval.high)],
        "mean_per_class": 100 * float(per_class[support > 0].mean()),
        "per_class": [100 * float(a) if n else None for a, n in zip(per_class, support, strict=True)],
    }
