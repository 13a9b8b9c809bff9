"""Weights between the start and the end of a fine-tuning (WiSE-FT).

Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022. There the start is a zero-shot model; here it is the
pre-trained backbone with the linear probe as its head, even where the fine-tuning began with a new head: both heads are
linear maps of features that have not moved far.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ["SHARES", "between"]

SHARES = (0.25, 0.5, 0.75)
"""Shares of the fine-tuned weights that are tried; those at 0 and 1 are the probe and the fine-tuned model."""


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return (1 - share) * start + share * end for each floating tensor, statistics of normalization included.

    Counters are those of the end.

    Raises:
        ValueError: The two are not of one network, or the share is outside [0, 1].

    Example:
        >>> between({"w": torch.tensor([0.0, 4])}, {"w": torch.tensor([4.0, 0])}, 0.25)
        {'w': tensor([1., 3.])}
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    differing = {key for key in {*start, *end} if key not in start or key not in end}
    differing |= {key for key in {*start} & {*end} if start[key].shape != end[key].shape}
    if differing:
        raise ValueError(f"the weights are not of one network: {min(differing)} differs; use runs of one backbone")
    return {
        key: start[key].lerp(value, share) if value.is_floating_point() else value.clone() for key, value in end.items()
    }
