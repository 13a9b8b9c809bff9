"""The course of the learning rates over a run."""

from __future__ import annotations

import math
from typing import Protocol

__all__ = ["Schedule", "factor"]

_RISE = 0.3  # of the steps, of one cycle without --warmup; this and the two below are torch's OneCycleLR's
_START, _END = 25.0, 25e4  # one cycle begins at 1/25 of the rate and ends at 1/250,000


class Schedule(Protocol):
    """The settings of the course, such as a [stochnorm.FinetuneConfig][]."""

    @property
    def schedule(self) -> str:
        """One of step, cosine, onecycle, constant."""

    @property
    def warmup(self) -> float:
        """Fraction of the steps over which the rates rise."""

    @property
    def decay_at(self) -> float:
        """Fraction of the steps after which `step` divides the rates by ten."""


def factor(step: int, steps: int, settings: Schedule) -> float:
    """Return what the learning rates are multiplied by at a step.

    With `warmup` w, the first n = round(w * steps) factors are those of the schedule times 1/(n + 1), ..., n/(n + 1).
    One cycle (Smith and Topin 2018, arXiv:1708.07120, with half waves of a cosine) rises anyway, over w or 30 % of the
    steps; momentum does not change with it.

    Args:
        step: Number of the step, from 0.
        steps: Number of steps of the run.
        settings: Schedule, warmup and decay_at.

    Example:
        >>> from stochnorm import FinetuneConfig
        >>> cosine = FinetuneConfig("photos", schedule="cosine", warmup=0.5)
        >>> [round(factor(step, 8, cosine), 2) for step in range(8)]
        [0.2, 0.4, 0.6, 0.8, 1.0, 0.85, 0.5, 0.15]
    """
    if settings.schedule == "onecycle":
        return _one_cycle(step, steps, settings.warmup or _RISE)
    warm = round(settings.warmup * steps)
    rise = (step + 1) / (warm + 1) if step < warm else 1.0
    if settings.schedule == "step":
        return rise * (0.1 if step >= settings.decay_at * steps else 1.0)
    if settings.schedule == "cosine" and step > warm:
        return (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
    return rise


def _one_cycle(step: int, steps: int, rise: float) -> float:
    top = max(rise * steps - 1, 0.0)
    if step <= top:
        return _wave(1 / _START, 1.0, step / top if top else 1.0)
    return _wave(1.0, 1 / _END, (step - top) / (steps - 1 - top))


def _wave(start: float, end: float, part: float) -> float:
    """Go from start to end along half a wave of the cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
