"""How p changes over a training, for the callbacks of other libraries."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import nn

from stochnorm.nn.schedule import schedule, set_p

__all__ = ["Kind", "Policy"]

Kind = Literal["linear", "cosine"]


class Policy(NamedTuple):
    """p from the first to the last step of a training."""

    start: float
    end: float
    kind: Kind

    @classmethod
    def of(cls, p: float, p_end: float | None, kind: Kind) -> Policy:
        """Return the policy of a callback's arguments.

        Raises:
            ValueError: p outside [0, 1], or an unknown kind.
        """
        policy = cls(p, p if p_end is None else p_end, kind)
        policy.at(0, 1)
        return policy

    def at(self, step: int, steps: int) -> float:
        """Return p at a step, from 0; beyond the last one it stays."""
        return schedule(self.kind, self.start, self.end, step, max(steps, 1))

    def apply(self, model: nn.Module, step: int, steps: int) -> None:
        """Set p of a model's layers.

        Raises:
            ValueError: The model has no StochNorm layer.
        """
        set_p(model, self.at(step, steps))
