"""StochNorm in fastai's `Learner`."""

from __future__ import annotations

from fastai.callback.core import Callback

from stochnorm.integrations.policy import Kind, Policy

__all__ = ["StochNormCallback"]

_STEPS = 10_000  # fastai tells the share of the training that is done: p follows it in steps as fine as these


class StochNormCallback(Callback):
    """Change p of a learner's StochNorm layers during each fit.

    Convert the model (`stochnorm.convert(learner.model)`) before the first fit. A `fine_tune` is two fits: p runs from
    its first to its last value in each.

    Args:
        p: p at the beginning, in [0, 1].
        p_end: p at the end, in [0, 1]; None: as at the beginning.
        kind: `linear` or `cosine`: how p goes from the one to the other.

    Raises:
        ValueError: p outside [0, 1], an unknown kind; at the first step, a model without StochNorm layers.
    """

    run_valid = False

    def __init__(self, p: float = 0.5, p_end: float | None = None, kind: Kind = "linear") -> None:
        self.policy = Policy.of(p, p_end, kind)

    def before_batch(self) -> None:
        """Set p for the step."""
        self.policy.apply(self.model, round(self.pct_train * (_STEPS - 1)), _STEPS)
