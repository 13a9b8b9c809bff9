"""Logits of images, and their metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stochnorm.data import Preprocessing, Split
from stochnorm.data.images.stream import send
from stochnorm.data.images.whole import WholeImages
from stochnorm.evaluation.tasks import Task, task_for
from stochnorm.models import Classifier
from stochnorm.nn.cuda.memory import free_memory, peak_within

__all__ = ["evaluate_split", "images_at_once", "predict_logits"]

_MOST_CROPS = 128  # at a time: they keep a GPU busy for some 11 ms, and take less memory than a training step of 48
_SHARE = 0.5  # of the free memory


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

    On a CUDA device the images are taken from those that live there, or sent ahead, and the logits come back together.
    After a first batch, whose memory is measured, batches are as large as memory allows, see
    [stochnorm.evaluation.logits.images_at_once][]. The last bits of logits depend on the size of the batches, so it is
    `batch_size` throughout where `torch.use_deterministic_algorithms` is on.

    Args:
        classifier: Model, classes and preprocessing.
        split: Images and labels.
        fabric: Device and precision.
        batch_size: Images, or crops, per batch; on a CUDA device of the first one.
        workers: Number of processes that read images.
        ten_crop: Average the logits of ten crops; see [stochnorm.evaluation.logits.predict_logits][].
        task: Kind of the labels; None: the classifier's, without positive weights.

    Raises:
        FloatingPointError: A logit is not finite.
    """
    task = task or task_for(classifier.classes, classifier.multi_label)
    crops = 10 if ten_crop else 1 + classifier.preprocessing.flip
    size = max(batch_size // crops, 1)
    images = WholeImages(split, fabric.device, workers=workers)
    # Filled in place: a list to join would double the memory.
    logits = torch.empty(len(split), len(classifier.classes), device=fabric.device)

    done = 0

    def fill(size: int, count: float = math.inf) -> None:
        """Compute the logits of the next batches."""
        nonlocal done
        batches = images.batches(size, start=done, count=count)
        for part in _logits(classifier.model, batches, classifier.preprocessing, fabric, ten_crop=ten_crop):
            logits[done : done + len(part)] = part
            done += len(part)

    if _grows(fabric.device):
        with peak_within(fabric.device) as peak:
            fill(size, count=1)
        larger = images_at_once(size, peak.used, free_memory(fabric.device), most=_MOST_CROPS // crops)
        with suppress(torch.OutOfMemoryError):  # another process has taken the memory: continue as before
            fill(larger)
    fill(size)
    logits = logits.cpu()
    groups = split.groups if any(split.groups) else None
    return logits, task.metrics(logits, split.targets, groups=groups)


def images_at_once(measured: int, used: float, free: float, *, most: int) -> int:
    """Return how many images to compute at a time, from the memory that a first batch took.

    Args:
        measured: Images of the first batch.
        used: Bytes that it took, besides what was in use before.
        free: Free memory of the device, bytes.
        most: Maximum number of images; more would not be faster.

    Returns:
        As many as fit into half of the free memory, at most `most`, but never less than in the first batch.

    Example:
        >>> images_at_once(32, 32 * 5e6, free=100e9, most=256), images_at_once(32, 32 * 5e6, free=1e9, most=256)
        (256, 100)
    """
    return max(measured, int(min(most, _SHARE * free * measured / max(used, 1))))


def predict_logits(
    model: nn.Module, batches: Iterable[Tensor], preprocessing: Preprocessing, fabric: Fabric, *, ten_crop: bool = False
) -> Tensor:
    """Compute logits in eval mode; afterwards the model's `training` flag is as before.

    Args:
        model: Network from images to logits.
        batches: Images uint8 (b, 3, resize, resize).
        preprocessing: Crop and normalization.
        fabric: Device and precision.
        ten_crop: Average the logits of ten crops, all in one batch, instead of using the center crop, and with
            `preprocessing.flip` its mirror image.

    Returns:
        (n, num_classes), float32, on the CPU.
    """
    return torch.cat(list(_logits(model, batches, preprocessing, fabric, ten_crop=ten_crop))).cpu()


def _grows(device: torch.device) -> bool:
    """Return whether batches on a device are as large as its memory allows."""
    return device.type == "cuda" and not torch.are_deterministic_algorithms_enabled()


@torch.no_grad()
def _logits(
    model: nn.Module, batches: Iterable[Tensor], preprocessing: Preprocessing, fabric: Fabric, *, ten_crop: bool
) -> Iterator[Tensor]:
    """Yield the logits of each batch, float32, on the device: nothing waits for it."""
    training = model.training
    model.eval()
    try:
        for batch in batches:
            images = send(batch, fabric.device)
            crops = preprocessing.ten_crop(images) if ten_crop else preprocessing.views(images)
            with fabric.autocast():
                output = model(preprocessing.normalize(crops.flatten(0, 1)))
            yield output.float().unflatten(0, crops.shape[:2]).mean(1)
    finally:
        model.train(training)  # not evaluating(), which frozen layers do not hear
