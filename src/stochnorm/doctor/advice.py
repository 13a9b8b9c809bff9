"""Advice in plain words: a command first, then what the statistics say. docs/doctor.md has the outcomes behind it."""

from __future__ import annotations

import math

from stochnorm.doctor.statistics import NetworkStatistics
from stochnorm.text import rounded

__all__ = ["advise", "verdict"]


def verdict(diagnosis: NetworkStatistics) -> str:
    """Return the command that finds the best method for these images; without data, its Python equivalent."""
    if diagnosis.training:
        return f"stochnorm finetune {diagnosis.training} --method auto"
    return "compare methods on your validation images, with stochnorm.compare or a loop of your own"


def advise(diagnosis: NetworkStatistics) -> list[str]:
    """Return the verdict, and in one to three sentences each what the statistics say and what they do not."""
    lines = [verdict(diagnosis)]
    if not diagnosis.inherited:
        return [*lines, "The weights are random, so there are no inherited statistics to compare with."]
    if math.isnan(diagnosis.shift):
        return [*lines, "No channel varied in pre-training, so there is no sigma to compare with."]
    distance = "far from" if diagnosis.far else "near" if diagnosis.near else "at some distance from"
    far = sum(row.far for row in diagnosis.rows)
    lines.append(
        f"The images are {distance} the inherited statistics: in the median layer, means differ by "
        f"{rounded(diagnosis.shift)} sigma and variances {rounded(2**diagnosis.scale, 1)}-fold; {far} of "
        f"{len(diagnosis.rows)} layers are far. Batch means vary by {rounded(diagnosis.noise)} sigma at "
        f"{diagnosis.batch_size:.0f} images per batch."
    )
    lines.append(
        "This distance has not predicted which method is best: frozen statistics won on images near to them and on "
        "images at some distance. So let validation images decide."
    )
    return lines
