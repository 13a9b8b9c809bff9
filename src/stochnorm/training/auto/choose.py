"""The choice among candidates: of those that are as good as the best, as far as the validation images tell, the surest.

On a hundred images the best accuracy of a dozen candidates is mostly luck. Their losses differ by less luck, once each
has the temperature that suits it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stochnorm.evaluation.auc import auc
from stochnorm.evaluation.bootstrap import resampled

__all__ = ["Choice", "Scored", "auc_error", "calibrated_loss", "choose", "paired_error"]

_RESAMPLES = 200
_TEMPERATURES = torch.logspace(-1, 1, 81)


class Scored(NamedTuple):
    """A candidate on the validation images."""

    name: str
    kind: int
    """Its place among the kinds, the simplest first; 0 is the probe."""
    score: float
    """Percent, on all validation images; higher is better."""
    loss: float
    """What decides among those whose scores do not: lower is better."""
    frozen: bool = False
    """Whether it is a network with frozen statistics, or weights between the probe and one."""


class Choice(NamedTuple):
    """What is chosen."""

    name: str
    best: str
    """The candidate with the highest score."""
    error: float
    """Standard error of the difference between the two, in percentage points; 0 if they are the same."""


def choose(scored: Sequence[Scored], error: Callable[[str, str], float]) -> Choice:
    """Return, of the candidates within one standard error of the best score, the one with the lowest loss.

    The standard error is that of the paired difference: both were judged on the same images. Nothing that scores below
    the probe is chosen. Of equal losses, the simplest. Where networks with frozen statistics are among them, or weights
    between such a network and the probe, one that was trained with statistics of batches is not chosen: validation
    images, which are like those of training, flatter it.

    Args:
        scored: At least one candidate.
        error: Standard error of the difference of two candidates, by their names, in percentage points.

    Example:
        >>> tried = [Scored("probe", 0, 70.0, 1.2), Scored("frozen", 2, 80.0, 0.8), Scored("vanilla", 4, 81.0, 0.9)]
        >>> choose(tried, lambda a, b: 2.0)
        Choice(name='frozen', best='vanilla', error=2.0)
    """
    best = max(scored, key=lambda one: (one.score, -one.loss, -one.kind))
    floor = max((one.score for one in scored if one.kind == 0), default=float("-inf"))
    errors = {one.name: 0.0 if one is best else error(best.name, one.name) for one in scored}
    close = [one for one in scored if one.score >= max(best.score - errors[one.name], floor)]
    if any(one.frozen for one in close):
        close = [one for one in close if one.frozen or one.kind == 0]
    chosen = min(close, key=lambda one: (one.loss, one.kind))
    return Choice(chosen.name, best.name, errors[chosen.name])


def calibrated_loss(logits: Tensor, targets: Tensor) -> float:
    """Return the cross-entropy at the temperature that suits these images best.

    So the loss does not punish a network for being too sure or not sure enough, which is mended by a single number.

    Args:
        logits: (n, num_classes).
        targets: Class numbers, (n,).

    Example:
        >>> logits, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 1])
        >>> round(calibrated_loss(logits, targets), 3) == round(calibrated_loss(logits / 4, targets), 3)
        True
    """
    return min(float(F.cross_entropy(logits.double() / t, targets)) for t in _TEMPERATURES)


def paired_error(first: Tensor, second: Tensor, groups: Sequence[str] | None = None) -> float:
    """Return the standard error of the difference of two accuracies on the same images, in percentage points.

    Args:
        first: 1 where the first is right, else 0, (n,).
        second: Likewise.
        groups: Group of each image, such as its patient, whose images vary together; None: none.

    Example:
        >>> round(paired_error(torch.tensor([1, 1, 1, 0]), torch.tensor([0, 1, 1, 0])), 2)
        25.0
    """
    difference = first.double() - second.double()
    n = len(difference)
    if n < 2:
        return 0.0
    parts = difference - difference.mean()
    if groups is not None:
        number = {name: i for i, name in enumerate(dict.fromkeys(name or i for i, name in enumerate(groups)))}
        member = torch.tensor([number[name or i] for i, name in enumerate(groups)])
        parts = torch.zeros(len(number), dtype=torch.float64).index_add(0, member, parts)
    units = len(parts)
    return 100 * math.sqrt(float(parts.square().sum()) * units / max(units - 1, 1)) / n


def auc_error(first: Tensor, second: Tensor, positive: Tensor, groups: Sequence[str] | None = None) -> float:
    """Return the standard error of the difference of two mean AUCs on the same images, by the bootstrap.

    Args:
        first: Logits, (n, findings).
        second: Likewise.
        positive: Labels, (n, findings).
        groups: As for `paired_error`.

    Returns:
        Percentage points.
    """
    differences = []
    for counts in resampled(len(first), groups, _RESAMPLES, seed=0):
        means = [auc(logits, positive.bool(), counts).nanmean(0) for logits in (first, second)]
        differences.append(means[0] - means[1])
    found = torch.cat(differences)
    found = found[found.isfinite()]
    return 100 * float(found.std()) if len(found) > 1 else 0.0
