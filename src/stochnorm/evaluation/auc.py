"""The area under the ROC curve."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["auc"]


def auc(scores: Tensor, positive: Tensor, counts: Tensor | None = None) -> Tensor:
    """Compute the area under the ROC curve: the probability that a positive image scores above a negative one.

    Ties count half. Pairs are counted in integers over the sorted scores, so that many resamples cost little more than
    one, and nothing is lost to rounding or to scores that a sigmoid would make equal.

    Args:
        scores: (n, findings), of any scale.
        positive: (n, findings), bool.
        counts: (n, resamples), int32: times that each image is drawn; None: once, in one resample.

    Returns:
        (findings, resamples), float64, on the CPU; nan if no positive or no negative image is drawn.

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
    # For each image, the number of negatives before the images of its score, and before those above it.
    negatives = F.pad((counts * ~positive[:, None]).cumsum(0, dtype=torch.int32), (0, 0, 1, 0))
    sizes = torch.unique_consecutive(scores, return_counts=True)[1]
    ends = sizes.cumsum(0).repeat_interleave(sizes)[positive]
    starts = ends - sizes.repeat_interleave(sizes)[positive]
    drawn = counts[positive].long()
    twice_won = (drawn * (negatives[starts] + negatives[ends])).sum(0)
    return twice_won.double() / (2 * drawn.sum(0) * negatives[-1])
