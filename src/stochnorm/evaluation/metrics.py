"""Metrics of logits, with one label an image or several, and how far chance may have moved them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_average_precision, binary_calibration_error

__all__ = ["auc", "classification_metrics", "multilabel_metrics", "resampled"]

_BINS = 15  # of the expected calibration error
_AT_ONCE = 100  # resamples, or images; bounds the memory
_FEWEST = 5  # positive, and negative, images or groups that a bootstrap interval of a finding takes


def classification_metrics(
    logits: Tensor, labels: Tensor, *, groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Metrics with one label an image.

    Args:
        logits: (n, num_classes).
        labels: (n,), int64.
        groups: What each image belongs to, such as its patient, where images are not independent; "" is itself.
        resamples: With groups, of the bootstrap; 0 leaves the interval out (None).
        seed: With groups, of the bootstrap.

    Returns:
        ``images``; ``loss`` (cross-entropy); in percent ``top1``, ``top1_interval`` (95 %; Wilson's score interval of
        n independent images; with groups, percentiles of a bootstrap that draws groups), ``mean_per_class`` (over the
        classes that have images), ``per_class`` (None where a class has none), ``ece`` (expected calibration error,
        15 bins of the predicted class's probability).

    Raises:
        FloatingPointError: A logit is not finite.
        ValueError: There are no images, or the labels are not a class of each.
    """
    _check_logits(logits)
    num_classes = logits.size(1)
    if labels.shape != logits.shape[:1] or not ((labels >= 0) & (labels < num_classes)).all():
        raise ValueError(
            f"labels must be a class of 0 to {num_classes - 1} for each of {len(logits)} images, got {_values(labels)}"
        )
    right = logits.argmax(1) == labels
    parts = list(zip(logits.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True))  # type: ignore[no-untyped-call]
    losses = torch.cat([F.cross_entropy(some.double(), theirs, reduction="none") for some, theirs in parts])
    confidence = torch.cat([some.softmax(1).amax(1) for some, _ in parts])
    support, hits = (torch.bincount(which, minlength=num_classes) for which in (labels, labels[right]))
    present = support > 0
    correct = int(right.sum())
    interval: list[float] | None = None
    if groups is None:
        wilson = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
        interval = [100 * float(wilson.low), 100 * float(wilson.high)]
    elif resamples:
        draws = (counts.double() for counts in resampled(len(labels), groups, resamples, seed))
        interval = _interval(torch.cat([right.double() @ counts / counts.sum(0) for counts in draws]))
    return {
        "images": len(labels),
        "loss": float(losses.mean()),
        "top1": 100 * correct / len(labels),
        "top1_interval": interval,
        "mean_per_class": 100 * float((hits[present].double() / support[present]).mean()),
        "per_class": [100 * int(h) / int(s) if s else None for h, s in zip(hits, support, strict=True)],
        "ece": 100 * float(binary_calibration_error(confidence, right.int(), _BINS)),
    }


def multilabel_metrics(
    logits: Tensor,
    targets: Tensor,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Metrics with several labels (findings) an image.

    The bootstrap draws images, or whole groups, with replacement; intervals are its 2.5 and 97.5 percentiles. A
    resample that draws no positive or no negative image of a finding leaves the finding out: of its own interval, and
    of that resample's mean. A finding with fewer than five positive or negative images (groups) has no interval, since
    so few say nothing of others; the mean has none where no finding has one.

    Args:
        logits: (n, findings).
        targets: (n, findings) in {0, 1}.
        groups: What each image belongs to, such as its patient, where images are not independent; "" is itself.
        resamples: Of the bootstrap; 0 leaves the intervals out (None). 1000 of 25,000 images with 14 findings take
            a fraction of a minute.
        seed: Of the bootstrap.

    Returns:
        ``images``; ``loss`` (binary cross-entropy, mean over images and findings); in percent ``mean_auc`` with
        ``mean_auc_interval``, ``average_precision`` (both means over the ``findings`` that have positive and negative
        images; None without any), ``ece`` (expected calibration error, 15 bins of the finding's probability, mean over
        all findings), ``per_class`` (area under the ROC curve per finding, None where undefined) with
        ``per_class_interval``; ``positives`` (images per finding).

    Raises:
        FloatingPointError: A logit is not finite.
        ValueError: There are no images, or the targets are not of the logits' shape, or hold something else than 0
            and 1.
    """
    _check_logits(logits)
    if targets.shape != logits.shape or not ((targets == 0) | (targets == 1)).all():
        raise ValueError(
            f"targets must be 0 or 1, a column a finding like the logits {tuple(logits.shape)}, got {_values(targets)}"
        )
    positive, labels = targets.bool(), targets.long()
    by_finding = list(zip(logits.double().sigmoid().T.contiguous(), labels.T.contiguous(), strict=True))
    errors = [binary_calibration_error(p, y, _BINS) for p, y in by_finding]
    areas = auc(logits, positive)[:, 0]
    drawn = areas[:, None] * torch.nan
    if resamples:
        draws = resampled(len(logits), groups, resamples, seed)
        drawn = torch.cat([auc(logits, positive, counts) for counts in draws], dim=1)
    member = _members(len(logits), groups)
    enough = torch.stack([_held_by(side, member) >= _FEWEST for side in (positive, ~positive)]).all(0)
    precisions = [
        float(binary_average_precision(p, y)) if area.isfinite() else torch.nan
        for (p, y), area in zip(by_finding, areas, strict=True)
    ]
    return {
        "images": len(logits),
        "loss": float(F.binary_cross_entropy_with_logits(logits.double(), targets.double())),
        "findings": int(areas.isfinite().sum()),
        "mean_auc": _percent(areas.nanmean()),
        "mean_auc_interval": _interval(drawn.nanmean(0)) if enough.any() else None,
        "average_precision": _percent(torch.tensor(precisions).nanmean()),
        "ece": _percent(torch.stack(errors).mean()),
        "per_class": [_percent(area) for area in areas],
        "per_class_interval": [_interval(x) if sure else None for x, sure in zip(drawn, enough, strict=True)],
        "positives": labels.sum(0).tolist(),
    }


def auc(scores: Tensor, positive: Tensor, counts: Tensor | None = None) -> Tensor:
    """Area under the ROC curve: how likely a positive image scores above a negative one, ties counted half.

    Counted in integers over the images in order of their scores, so that many resamples cost little more than one and
    nothing is lost to rounding, or to scores that a sigmoid would make equal.

    Args:
        scores: (n, findings), of any scale.
        positive: (n, findings), bool.
        counts: (n, resamples), int32: how often each image is drawn; None is once, in one resample.

    Returns:
        (findings, resamples), float64; nan where no positive or no negative image is drawn.

    Example:
        >>> auc(torch.tensor([[0.1], [0.4], [0.4], [0.8]]), torch.tensor([[False], [True], [False], [True]]))
        tensor([[0.8750]], dtype=torch.float64)
    """
    if counts is None:
        counts = torch.ones(len(scores), 1, dtype=torch.int32)
    return torch.stack([_auc_of_one(s, y, counts) for s, y in zip(scores.T, positive.T, strict=True)])


def _auc_of_one(scores: Tensor, positive: Tensor, counts: Tensor) -> Tensor:
    scores, order = scores.sort()
    positive, counts = positive[order], counts[order]
    # Of each image: how many negatives stand before the images of its score, and how many before those above it.
    negatives = F.pad((counts * ~positive[:, None]).cumsum(0, dtype=torch.int32), (0, 0, 1, 0))
    sizes = torch.unique_consecutive(scores, return_counts=True)[1]
    ends = sizes.cumsum(0).repeat_interleave(sizes)[positive]
    starts = ends - sizes.repeat_interleave(sizes)[positive]
    drawn = counts[positive].long()
    twice_won = (drawn * (negatives[starts] + negatives[ends])).sum(0)
    return twice_won.double() / (2 * drawn.sum(0) * negatives[-1])


def resampled(n: int, groups: Sequence[str] | None, resamples: int, seed: int) -> Iterator[Tensor]:
    """How often each image is drawn, when n images, or as many groups as there are, are drawn with replacement.

    Args:
        n: How many images there are.
        groups: The group of each, drawn with all its images; an empty name is an image on its own. None draws images.
        resamples: How often to do so.
        seed: Of a generator of its own.

    Yields:
        (n, resamples), int32, for some of the resamples at a time.

    Raises:
        ValueError: There are not as many groups given as images, or less than one resample is asked for.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    member = _members(n, groups)
    units = int(member.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, resamples, _AT_ONCE):
        drawn = torch.randint(units, (units, min(_AT_ONCE, resamples - start)), generator=generator)
        counts = torch.zeros_like(drawn, dtype=torch.int32)
        counts.scatter_add_(0, drawn, torch.ones_like(counts))
        yield counts[member]


def _members(n: int, groups: Sequence[str] | None) -> Tensor:
    """(n,), int64: the number of each image's group."""
    if groups is not None and len(groups) != n:
        raise ValueError(f"groups must say what each image belongs to, got {len(groups)} for {n} images")
    names = [name or i for i, name in enumerate(groups or [""] * n)]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number[name] for name in names])


def _held_by(side: Tensor, member: Tensor) -> Tensor:
    """(findings,): how many groups have an image on that side of a finding."""
    images = torch.zeros(int(member.max()) + 1, side.size(1)).index_add(0, member, side.float())
    return (images > 0).sum(0)


def _check_logits(logits: Tensor) -> None:
    if not len(logits):
        raise ValueError(f"metrics need an image at least, got logits of shape {tuple(logits.shape)}")
    finite = logits.isfinite().all(1)
    if not finite.all():
        raise FloatingPointError(
            f"logits must be finite, those of {int((~finite).sum())} of {len(logits)} images are not"
        )


def _values(labels: Tensor) -> str:
    extent = f"values from {float(labels.min()):g} to {float(labels.max()):g} of " if labels.numel() else ""
    return f"{extent}shape {tuple(labels.shape)}"


def _percent(value: Tensor) -> float | None:
    """None is what JSON has for nan."""
    return None if value.isnan() else 100 * float(value)


def _interval(values: Tensor) -> list[float] | None:
    """95 % of the resamples, in percent."""
    bounds: list[float] = values.nanquantile(values.new_tensor([0.025, 0.975])).mul(100).tolist()
    return None if values.isnan().all() else bounds
