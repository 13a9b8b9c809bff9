"""How many candidates and steps fit into a time."""

from __future__ import annotations

import pytest

from stochnorm import FinetuneConfig
from stochnorm.methods.auto import seconds_of
from stochnorm.training.auto.budget import FEWEST_STEPS, Pace, first_round, second_round

PACE = Pace(step=0.2, around=3.0)


@pytest.mark.parametrize("seconds", [10, 30, 100, 500])
def test_the_first_round_fits_its_time(seconds: float) -> None:
    tried, steps = first_round(seconds, PACE, 6, per_pass=10, most=10**9)
    assert tried * (PACE.around + steps * PACE.step) <= seconds
    assert tried == 0 or steps >= FEWEST_STEPS


def test_more_time_tries_more() -> None:
    rounds = [first_round(seconds, PACE, 6, per_pass=10, most=10**9) for seconds in (5, 10, 30, 100)]
    assert [tried for tried, _ in rounds] == [0, 1, 4, 6]


def test_steps_are_bounded_by_passes_and_by_the_user() -> None:
    assert first_round(1e6, PACE, 6, per_pass=2, most=10**9) == (6, 40)
    assert first_round(1e6, PACE, 6, per_pass=2, most=12) == (6, 12)
    assert second_round(1e6, PACE, per_pass=2, most=10**9, before=40) == 120
    assert second_round(1e6, PACE, per_pass=2, most=12, before=12) == 0  # the same again would tell nothing


@pytest.mark.parametrize("budget", ["", "10", "ten minutes", "0m", "-5m", "10d"])
def test_a_budget_is_a_time(budget: str) -> None:
    with pytest.raises(ValueError, match=f"budget must be a time such as 90s, 10m or 1h, got '{budget}'"):
        FinetuneConfig("photos", budget=budget)
    assert seconds_of(" 2M ") == 120


def test_another_method_has_no_budget() -> None:
    with pytest.raises(ValueError, match="method vanilla does not use budget, which is for auto"):
        FinetuneConfig("photos", method="vanilla", budget="5m").check_used()
