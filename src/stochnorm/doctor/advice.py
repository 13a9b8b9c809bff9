"""Advice in plain words. Its rules of thumb are not results: see docs/doctor.md."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import takewhile

from stochnorm.doctor.statistics import NetworkStatistics
from stochnorm.text import count, rounded

__all__ = ["advise", "all_but", "shared_beginning"]

NOISY = 0.25


def advise(diagnosis: NetworkStatistics) -> list[str]:
    """Derive advice about p and freezing from the statistics; one to three sentences each."""
    rows = diagnosis.rows
    if not diagnosis.inherited:
        return ["The weights are random, so there are no inherited statistics and there is no advice."]
    if math.isnan(diagnosis.shift):
        return ["No channel varied in pre-training, so there is no sigma to compare with and there is no advice."]
    found = (
        f"in the median layer, means differ by {rounded(diagnosis.shift)} sigma and variances "
        f"{rounded(2**diagnosis.scale, 1)}-fold"
    )
    if diagnosis.far:
        advice = [
            f"The data are far from the inherited statistics ({found}): the moving branch normalizes by statistics "
            "that do not fit. Do not freeze them; use p near 1, or start from statistics of the target data "
            "(--statistics target)."
        ]
    elif diagnosis.near:
        advice = [
            f"The inherited statistics fit the data ({found}): frozen statistics are worth a try, and any p is safe; "
            "start with 0.5."
        ]
    else:
        advice = [
            f"The data are at some distance from the inherited statistics ({found}): let the statistics adapt, so do "
            "not freeze them; start with p = 0.5."
        ]
    far = [row.name for row in rows if row.far]
    if len(far) >= len(rows) / 2:
        far = []  # the advice above covers them
    if far:
        advice.append(
            f"{len(far)} of {len(rows)} layers are nevertheless far ({_some(far)}): exclude them from freezing, and "
            "from StochNorm if training is unstable."
        )
    if diagnosis.noise >= NOISY:
        # A smaller p relies on the inherited statistics, which must fit.
        steadier = "larger batches" if diagnosis.far else "larger batches, or a smaller p,"
        advice.append(
            f"Batch statistics are noisy at {diagnosis.batch_size:.0f} images per batch (means vary by "
            f"{diagnosis.noise:.2f} sigma): {steadier} would make the normalization more stable."
        )
    awake = [row for row in rows if row.awake]
    if awake:
        advice.append(
            f"{count(sum(row.awake for row in awake), 'channel')} did not vary in pre-training but vary here (in "
            f"{_some([row.name for row in awake])}): the moving branch divides by sqrt(eps) and may make them very "
            "large. If the loss jumps, exclude these layers from StochNorm and from freezing."
        )
    unwanted = [row.name for row in rows if row.awake or row.name in far]
    if 0 < len(unwanted) < len(rows):
        pattern = all_but(unwanted, [row.name for row in rows])
        advice.append(f"To exclude {'those layers' if len(unwanted) > 1 else 'that layer'}: --norm-layers '{pattern}'")
    advice.append(
        "These are rules of thumb: the shift shows whether the moving branch is safe, not whether it helps. Compare "
        "with BatchNorm on your validation split."
    )
    return advice


def all_but(unwanted: Sequence[str], layers: Sequence[str]) -> str:
    r"""Make a regular expression that matches the names of all layers except the unwanted ones, for `--norm-layers`.

    A stage or a block that is unwanted as a whole is named once.

    Args:
        unwanted: Names of the unwanted layers.
        layers: Names of all layers.

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
    """Return the parts that all names begin with: `features.` for `features.0` and `features.1`; never a whole name."""
    parts = [name.split(".")[:-1] for name in names]
    shared = takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
    return "".join(f"{level[0]}." for level in shared)


def _literal(name: str) -> str:
    return re.escape(name).replace(r"\.", "[.]")


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
