"""The time that is left, and what fits into it."""

from __future__ import annotations

from collections.abc import Sequence

from stochnorm.training.auto.budget import Pace
from stochnorm.training.auto.candidates import Candidate
from stochnorm.training.auto.state import State

__all__ = ["Clock"]

_WORTH = 0.5  # of the planned steps: a run that has time for fewer is left out


class Clock:
    """Says what fits into the time that is left; a resumed search hears what it heard before the stop.

    Args:
        state: What was done so far, with the time that it took.
        seconds: Time for all.
        again: Leave time to train what is chosen once more.
    """

    def __init__(self, state: State, seconds: float, *, again: bool) -> None:
        self._state, self._again = state, again
        self.seconds = seconds
        self.end = 0.0
        """Seconds to leave for the end."""
        self.pace = Pace(0.0, 0.0)
        """Time of a run whose steps cost 1, as the last one showed it."""
        self._costs: list[int] = []

    @property
    def left(self) -> float:
        """Seconds left for fine-tuning."""
        return self.seconds - self.end - self._state.seconds

    def tried(self, candidate: Candidate) -> None:
        """Hear that a candidate was tried, so that it may be the one to train once more."""
        self._costs.append(candidate.cost)

    def time_for(self, candidate: Candidate, steps: int) -> bool:
        """Return whether the planned candidates have left time for another."""
        return self._state.decided(f"also {candidate.name}", lambda: self._fitting([candidate]) >= steps)

    def time_for_again(self, candidate: Candidate, steps: int) -> bool:
        """Return whether there is time to train a candidate once more."""
        return self._state.decided(
            "refit", lambda: self.pace.steps_of_each(self.left, [candidate.cost]) >= _WORTH * steps
        )

    def some(self, left: Sequence[Candidate], steps: int) -> int:
        """Return for how many of the candidates there is time, at least one: the last ones are left out."""

        def some() -> int:
            return max((n for n in range(1, len(left) + 1) if self._fitting(left[:n]) >= _WORTH * steps), default=1)

        return self._state.decided(f"some from {left[0].name}", some)

    def steps_of(self, candidate: Candidate, queue: Sequence[Candidate], steps: int, *, needed: bool) -> int:
        """Return the steps of a candidate; 0 where there is time for too few.

        Args:
            candidate: The next one.
            queue: Those after it, which are to have as many.
            steps: As planned.
            needed: It is tried whatever the time, since something has to be there at the end.
        """

        def fitting() -> int:
            most = min(self._fitting([candidate, *queue]), steps)
            return most if most >= _WORTH * steps else steps * needed

        return self._state.decided(f"steps of {candidate.name}", fitting)

    def _fitting(self, left: Sequence[Candidate]) -> int:
        """Return how many steps fit, if all that are left to try have as many, and what is chosen once more."""
        costs = [candidate.cost for candidate in left]
        again = [max(self._costs + costs)] if self._again else []
        return self.pace.steps_of_each(self.left, costs + again)
