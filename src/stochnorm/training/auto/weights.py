"""Weights between the start and the end of a fine-tuning (WiSE-FT).

Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022. There the start is a zero-shot model; here it is the
pre-trained backbone with the linear probe as its head, even where the fine-tuning began with a new head: both heads are
linear maps of features that have not moved far.
"""

from __future__ import annotations

from stochnorm.nn.mixtures import between

__all__ = ["SHARES", "between"]

SHARES = (0.25, 0.5, 0.75)
"""Shares of the fine-tuned weights that are tried; those at 0 and 1 are the probe and the fine-tuned model."""
