"""Metrics of logits, single-label and multi-label, with intervals. A new metric is a key here and a row in table.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    binary_average_precision,
    multiclass_stat_scores,
)

from stochnorm.evaluation.auc import auc
from stochnorm.evaluation.bootstrap import groups_with, interval, resampled
from stochnorm.runs.calibration import calibration_bins, calibration_error

__all__ = ["FEWEST", "classification_metrics", "multilabel_metrics", "percent"]

_AT_ONCE = 100  # images; bounds the memory
FEWEST = 5
"""Positive, and negative, images or groups that a finding needs for a bootstrap interval."""


def classification_metrics(
    logits: Tensor, labels: Tensor, *, groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compute the metrics of single-label images.

    Args:
        logits: (n, num_classes), on the CPU.
        labels: (n,), int64.
        groups: Group of each image, such as its patient, if images are not independent; "" is an image by itself.
        resamples: With groups, number of bootstrap resamples; 0: no interval (None).
        seed: With groups, random seed of the bootstrap.

    Returns:
        `images`; `loss` (cross-entropy); in percent `top1`, `top1_interval` (95 %; Wilson's score interval of n
        independent images; with groups, percentiles of a bootstrap that draws groups), `mean_per_class` (over the
        classes with images; the macro recall), `per_class` (recall; None for a class without images), `macro_precision`
        and `macro_f1` (over the classes with images), `per_class_precision` (0 for a class that is never predicted) and
        `per_class_f1` (None for a class without images), `majority` (the share of the largest class: the top-1 of a
        model that always answers with it), `ece` (expected calibration error, 15 bins of the predicted class's
        probability).

    Raises:
        FloatingPointError: A logit is not finite.
        ValueError: There are no images, or not one class per image.
    """
    _check_logits(logits)
    num_classes = logits.size(1)
    if labels.shape != logits.shape[:1] or not ((labels >= 0) & (labels < num_classes)).all():
        raise ValueError(
            f"labels must be a class from 0 to {num_classes - 1} for each of {len(logits)} images, got "
            f"{_values(labels)}"
        )
    answers = logits.argmax(1)
    right = answers == labels
    parts = list(zip(logits.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True))  # type: ignore[no-untyped-call]
    losses = torch.cat([F.cross_entropy(some.double(), theirs, reduction="none") for some, theirs in parts])
    confidence = torch.cat([some.softmax(1).amax(1) for some, _ in parts])
    counts_of = multiclass_stat_scores(answers, labels, num_classes, average=None).double()
    hits, false_alarms, _, misses, support = counts_of.T
    present = support > 0
    precision = 100 * hits / (hits + false_alarms).clamp(min=1)
    f1 = 100 * 2 * hits / (2 * hits + false_alarms + misses).clamp(min=1)
    correct = int(right.sum())
    bounds: list[float] | None = None
    if groups is None:
        wilson = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
        bounds = [100 * float(wilson.low), 100 * float(wilson.high)]
    elif resamples:
        draws = (counts.double() for counts in resampled(len(labels), groups, resamples, seed))
        bounds = interval(torch.cat([right.double() @ counts / counts.sum(0) for counts in draws]))
    return {
        "images": len(labels),
        "loss": float(losses.mean()),
        "top1": 100 * correct / len(labels),
        "top1_interval": bounds,
        "mean_per_class": 100 * float((hits[present] / support[present]).mean()),
        "per_class": [100 * int(h) / int(s) if s else None for h, s in zip(hits, support, strict=True)],
        "macro_precision": float(precision[present].mean()),
        "macro_f1": float(f1[present].mean()),
        "per_class_precision": [float(p) if s else None for p, s in zip(precision, support, strict=True)],
        "per_class_f1": [float(f) if s else None for f, s in zip(f1, support, strict=True)],
        "majority": 100 * int(support.max()) / len(labels),
        "ece": 100 * calibration_error(calibration_bins(confidence, right)),
    }


def multilabel_metrics(
    logits: Tensor,
    targets: Tensor,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the metrics of multi-label images, with any number of findings each.

    The bootstrap draws images, or whole groups, with replacement; intervals are its 2.5 and 97.5 percentiles. A
    resample without a positive or without a negative image of a finding does not count for the finding's interval, and
    its mean is over the other findings. A finding with fewer than five positive or negative images (groups) has no
    interval, since they are too few to represent others; the mean has none if no finding has one.

    Args:
        logits: (n, findings), on the CPU.
        targets: (n, findings) in {0, 1}.
        groups: Group of each image, such as its patient, if images are not independent; "" is an image by itself.
        resamples: Number of bootstrap resamples; 0: no intervals (None). 1000 resamples of 25,000 images with 14
            findings take a fraction of a minute.
        seed: Random seed of the bootstrap.

    Returns:
        `images`; `loss` (binary cross-entropy, mean over images and findings); in percent `mean_auc` with
        `mean_auc_interval`, `average_precision` (both means over the `findings` with positive and negative images; None
        without any), `ece` (expected calibration error, 15 bins of the finding's probability, mean over all findings),
        `per_class` (area under the ROC curve of each finding, None if undefined) with `per_class_interval`;
        `positives` (positive images of each finding).

    Raises:
        FloatingPointError: A logit is not finite.
        ValueError: There are no images, or the targets do not have the logits' shape or have other values than 0 and 1.
    """
    _check_logits(logits)
    if targets.shape != logits.shape or not ((targets == 0) | (targets == 1)).all():
        raise ValueError(
            f"targets must be 0 or 1, of the shape of the logits {tuple(logits.shape)}, got {_values(targets)}"
        )
    positive, labels = targets.bool(), targets.long()
    by_finding = list(zip(logits.double().sigmoid().T.contiguous(), labels.T.contiguous(), strict=True))
    errors = [calibration_error(calibration_bins(p, y)) for p, y in by_finding]
    areas = auc(logits, positive)[:, 0]
    drawn = areas[:, None] * torch.nan
    if resamples:
        draws = resampled(len(logits), groups, resamples, seed)
        drawn = torch.cat([auc(logits, positive, counts) for counts in draws], dim=1)
    enough = torch.stack([groups_with(side, groups) >= FEWEST for side in (positive, ~positive)]).all(0)
    precisions = [
        float(binary_average_precision(_ranks(scores), y)) if area.isfinite() else torch.nan
        for scores, y, area in zip(logits.T, labels.T, areas, strict=True)
    ]
    return {
        "images": len(logits),
        "loss": float(F.binary_cross_entropy_with_logits(logits.double(), targets.double())),
        "findings": int(areas.isfinite().sum()),
        "mean_auc": percent(areas.nanmean()),
        "mean_auc_interval": interval(drawn.nanmean(0)) if enough.any() else None,
        "average_precision": percent(torch.tensor(precisions).nanmean()),
        "ece": 100 * sum(errors) / len(errors),
        "per_class": [percent(area) for area in areas],
        "per_class_interval": [interval(x) if sure else None for x, sure in zip(drawn, enough, strict=True)],
        "positives": labels.sum(0).tolist(),
    }


def _check_logits(logits: Tensor) -> None:
    if not len(logits):
        raise ValueError(f"metrics need at least one image, got logits of shape {tuple(logits.shape)}")
    finite = logits.isfinite().all(1)
    if not finite.all():
        raise FloatingPointError(
            f"logits must be finite, but those of {int((~finite).sum())} of {len(logits)} images are not"
        )


def _ranks(scores: Tensor) -> Tensor:
    """Return numbers in [0, 1) in the order of the scores, which a sigmoid would make equal where they are large."""
    ranks: Tensor = torch.unique(scores, return_inverse=True)[1]
    return ranks.double() / len(scores)


def _values(labels: Tensor) -> str:
    extent = f"values from {float(labels.min()):g} to {float(labels.max()):g} of " if labels.numel() else ""
    return f"{extent}shape {tuple(labels.shape)}"


def percent(value: Tensor) -> float | None:
    """Return a fraction in percent; None for nan, which JSON does not have."""
    return None if value.isnan() else 100 * float(value)
