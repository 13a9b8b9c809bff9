"""How many candidates and steps fit into a time."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["FEWEST_STEPS", "Pace", "first_round", "second_round"]

FEWEST_STEPS = 20  # a candidate with fewer says nothing
_FIRST_PASSES, _PASSES = 20, 60  # over the training images, at most
_WORTH = 1.5  # times the steps of the first round, for the second to be of use


class Pace(NamedTuple):
    """The time that a run takes."""

    step: float
    """Seconds per step."""
    around: float
    """Seconds for what is not training: reading, building the model, validating."""

    def steps(self, seconds: float) -> int:
        """Return how many steps fit.

        Example:
            >>> Pace(step=0.5, around=2.0).steps(12.0)
            20
        """
        return max(0, math.floor((seconds - self.around) / self.step))


def first_round(seconds: float, pace: Pace, count: int, per_pass: int, most: int) -> tuple[int, int]:
    """Return how many of the candidates to try, and with how many steps each.

    Args:
        seconds: Time for the round.
        pace: Time of a run.
        count: Number of candidates.
        per_pass: Steps per pass over the training images.
        most: Upper bound of the steps.

    Returns:
        Candidates and steps; no candidate where not even one run of a few steps fits.

    Example:
        >>> first_round(90, Pace(0.5, 2), 6, per_pass=10, most=10_000), first_round(30, Pace(0.5, 2), 6, 10, 10_000)
        ((6, 26), (2, 26))
        >>> first_round(10, Pace(0.5, 2), 6, 10, 10_000), first_round(3600, Pace(0.5, 2), 6, 10, 10_000)
        ((0, 0), (6, 200))
    """
    bound = min(most, _FIRST_PASSES * per_pass)
    for tried in range(count, 0, -1):
        steps = min(pace.steps(seconds / tried), bound)
        if steps >= min(FEWEST_STEPS, bound):
            return tried, steps
    return 0, 0


def second_round(seconds: float, pace: Pace, per_pass: int, most: int, before: int) -> int:
    """Return the steps of a run in the second round; 0 where they would not be many more than before.

    Example:
        >>> second_round(100, Pace(0.5, 2), per_pass=10, most=10_000, before=26)
        196
        >>> second_round(20, Pace(0.5, 2), per_pass=10, most=10_000, before=26)
        0
    """
    steps = min(pace.steps(seconds), most, _PASSES * per_pass)
    return steps if steps >= _WORTH * before else 0
