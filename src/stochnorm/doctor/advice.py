"""The doctor's advice in plain words. Its rules of thumb are not results: see docs/doctor.md."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from stochnorm.text import rounded

if TYPE_CHECKING:
    from stochnorm.doctor.diagnosis import Diagnosis

__all__ = ["advise", "all_but", "shared_beginning"]

NOISY = 0.25


def advise(diagnosis: Diagnosis) -> list[str]:
    """What the numbers suggest about p and freezing, a sentence or a few each."""
    rows = diagnosis.rows
    if not diagnosis.inherited:
        return ["The weights are random, so nothing was inherited, and there is nothing to advise."]
    if math.isnan(diagnosis.shift):
        return ["No channel varied in pre-training, so there is no sigma to measure by, and nothing to advise."]
    found = (
        f"in the median layer, means are off by {rounded(diagnosis.shift)} sigma and variances "
        f"{rounded(2**diagnosis.scale, 1)}-fold"
    )
    if diagnosis.far:
        advice = [
            f"The data lie far from the inherited statistics ({found}): the moving branch normalizes by statistics "
            "that do not fit. Do not freeze them; prefer p near 1, or start from statistics of the target data "
            "(--statistics target)."
        ]
    elif diagnosis.near:
        advice = [
            f"The inherited statistics fit the data ({found}): frozen statistics are worth a try, and any p is "
            "sound; p = 0.5 is the place to start."
        ]
    else:
        advice = [
            f"The data lie at some distance from the inherited statistics ({found}): let the statistics adapt, so "
            "do not freeze them; p = 0.5 is the place to start."
        ]
    far = [row.name for row in rows if row.far]
    if len(far) >= len(rows) / 2:
        far = []  # said above
    if far:
        advice.append(
            f"{len(far)} of {len(rows)} layers are far off all the same ({_some(far)}): leave those out of "
            "freezing, and of StochNorm if training is unstable."
        )
    if diagnosis.noise >= NOISY:
        # A smaller p leans on the inherited statistics, which must fit for that.
        steadier = "larger batches" if diagnosis.far else "larger batches, or a smaller p,"
        advice.append(
            f"Batch statistics are noisy at {diagnosis.batch_size:.0f} images a batch (means wobble by "
            f"{diagnosis.noise:.2f} sigma): {steadier} would steady the normalization."
        )
    awake = [row for row in rows if row.awake]
    if awake:
        advice.append(
            f"{sum(row.awake for row in awake)} channels that did not vary in pre-training do so here (in "
            f"{_some([row.name for row in awake])}): the moving branch divides them by sqrt(eps) and may blow them "
            "up. If the loss jumps, leave these layers out of StochNorm and of freezing."
        )
    unwanted = [row.name for row in rows if row.awake or row.name in far]
    if 0 < len(unwanted) < len(rows):
        pattern = all_but(unwanted, [row.name for row in rows])
        advice.append(f"To leave {'those layers' if len(unwanted) > 1 else 'it'} out: --norm-layers '{pattern}'")
    advice.append(
        "These are rules of thumb: the shift says whether the moving branch is sound, not whether it helps. "
        "Compare with BatchNorm on your validation split."
    )
    return advice


def all_but(unwanted: Sequence[str], layers: Sequence[str]) -> str:
    r"""A regular expression that is found in the names of all layers but the unwanted, for ``--norm-layers``.

    A stage or a block that is unwanted as a whole is named once.

    Args:
        unwanted: Names of layers.
        layers: Those of all layers.

    Example:
        >>> all_but(["stages.1.bn1", "stages.1.bn2"], ["bn", "stages.0.bn1", "stages.1.bn1", "stages.1.bn2"])
        '^(?!stages[.]1\\b)'
    """
    kept = set(layers) - set(unwanted)
    places: dict[str, None] = {}
    for name in unwanted:
        parts = name.split(".")
        beginnings = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        places[next((b for b in beginnings if not any(f"{k}.".startswith(f"{b}.") for k in kept)), name)] = None
    start = shared_beginning(list(places))
    rest = "|".join(_literal(place.removeprefix(start)) for place in places)
    return rf"^(?!{_literal(start)}({rest})\b)" if len(places) > 1 else rf"^(?!{_literal(start)}{rest}\b)"


def shared_beginning(names: Sequence[str]) -> str:
    """The parts that all names begin with: ``features.`` of ``features.0`` and ``features.1``; never a whole name."""
    parts = [name.split(".")[:-1] for name in names]
    shared = takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
    return "".join(f"{level[0]}." for level in shared)


def _literal(name: str) -> str:
    return re.escape(name).replace(r"\.", "[.]")


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
