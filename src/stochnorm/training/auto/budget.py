"""How many candidates and steps fit into a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["FEWEST_STEPS", "Pace", "plan"]

FEWEST_STEPS = 20  # a candidate with fewer says nothing
_PASSES = 60  # over the training images, at most
_ENOUGH_STEPS, _ENOUGH_PASSES = 120, 5  # with so many, another candidate is of more use than more steps


class Pace(NamedTuple):
    """The time that a run takes."""

    step: float
    """Seconds per step of one forward and backward pass."""
    around: float
    """Seconds for what is not training: reading, building the model, validating."""

    def steps(self, seconds: float) -> int:
        """Return how many steps fit.

        Example:
            >>> Pace(step=0.5, around=2.0).steps(12.0)
            20
        """
        return max(0, math.floor((seconds - self.around) / self.step))

    def steps_of_each(self, seconds: float, costs: Sequence[int]) -> int:
        """Return how many steps fit into each of several runs, by the costs of their steps.

        Example:
            >>> Pace(step=0.5, around=2.0).steps_of_each(19.0, [1, 2])
            10
        """
        return Pace(self.step * sum(costs), self.around * len(costs)).steps(seconds)


def plan(
    seconds: float, pace: Pace, costs: Sequence[int], per_pass: int, most: int, *, again: bool = False
) -> tuple[int, int]:
    """Return how many of the candidates to try, and with how many steps each.

    As many as can have enough steps; where not even one can, one.

    Args:
        seconds: Time for all.
        pace: Time of a run whose steps cost 1.
        costs: Cost of a step of each candidate, at least one of them.
        per_pass: Steps per pass over the training images.
        most: Upper bound of the steps.
        again: Leave time to train one of the candidates once more, the dearest.

    Returns:
        Candidates and steps; no candidate where not even a few steps fit.

    Example:
        >>> plan(420, Pace(1.0, 5), [1, 2, 1], per_pass=10, most=10_000), plan(90, Pace(1.0, 5), [1, 2, 1], 10, 10_000)
        ((2, 136), (1, 85))
        >>> plan(10, Pace(1.0, 5), [1, 2, 1], 10, 10_000), plan(7200, Pace(1.0, 5), [1, 2, 1], 10, 10_000)
        ((0, 0), (3, 600))
    """
    bound = min(most, _PASSES * per_pass)
    enough = min(bound, max(_ENOUGH_STEPS, _ENOUGH_PASSES * per_pass))
    for tried in range(len(costs), 0, -1):
        some = [*costs[:tried], *([max(costs[:tried])] if again else [])]
        steps = min(pace.steps_of_each(seconds, some), bound)
        if steps >= (enough if tried > 1 else min(FEWEST_STEPS, bound)):
            return tried, steps
    return 0, 0
