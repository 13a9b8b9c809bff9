"""Area under the ROC curve of a cross-validation: within each fold, since the folds have models of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stochnorm.evaluation.auc import auc
from stochnorm.evaluation.bootstrap import groups_with, interval, resampled
from stochnorm.evaluation.metrics import FEWEST, percent

__all__ = ["auc_by_fold"]


def auc_by_fold(
    scores: Tensor,
    targets: Tensor,
    folds: Tensor,
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the AUC of each finding as the mean over the folds, with intervals by a bootstrap within the folds.

    An AUC of all predictions together compares scores of different models. It is too low even where these are alike: a
    fold with more positive images than the others has a model of fewer, whose scores are lower (Parker, Gunter and
    Bedo, BMC Bioinformatics 2007).

    Args:
        scores: (n, findings), higher for positive.
        targets: (n, findings) in {0, 1}.
        folds: (n,): fold of each image.
        groups: Group of each image, such as its patient, all of whose images are in one fold; None: none.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.

    Returns:
        `findings`, `mean_auc`, `mean_auc_interval`, `per_class`, `per_class_interval`, as
        [stochnorm.evaluation.metrics.multilabel_metrics][] returns them. A fold without a positive or without a
        negative image of a finding does not count for it.
    """
    positive = targets.bool()
    areas, drawn = [], []
    for fold in sorted(set(folds.tolist())):
        inside = (folds == fold).nonzero().flatten().tolist()
        own, theirs = scores[inside], positive[inside]
        members = None if groups is None else [groups[i] for i in inside]
        draws = resampled(len(inside), members, resamples, seed + fold)
        areas.append(auc(own, theirs)[:, 0])
        drawn.append(torch.cat([auc(own, theirs, counts) for counts in draws], dim=1))
    mean, resampled_means = torch.stack(areas).nanmean(0), torch.stack(drawn).nanmean(0)
    enough = torch.stack([groups_with(side, groups) >= FEWEST for side in (positive, ~positive)]).all(0)
    return {
        "findings": int(mean.isfinite().sum()),
        "mean_auc": percent(mean.nanmean()),
        "mean_auc_interval": interval(resampled_means.nanmean(0)) if enough.any() else None,
        "per_class": [percent(area) for area in mean],
        "per_class_interval": [interval(x) if sure else None for x, sure in zip(resampled_means, enough, strict=True)],
    }
