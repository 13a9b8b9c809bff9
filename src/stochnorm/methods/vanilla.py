"""Plain fine-tuning: the baseline."""

from __future__ import annotations

from stochnorm.methods.method import Method

__all__ = ["Vanilla"]


class Vanilla(Method):
    """BatchNorm, cross-entropy, weight decay."""

    name = "vanilla"
    title = "plain fine-tuning"
    acts_on = "nothing"
    what = "BatchNorm, cross-entropy, weight decay: the baseline"
