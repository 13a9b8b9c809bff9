"""How many candidates and steps fit into a time."""

from __future__ import annotations

import pytest

from stochnorm import FinetuneConfig
from stochnorm.methods.auto import seconds_of
from stochnorm.training.auto.budget import FEWEST_STEPS, Pace, plan

PACE = Pace(step=0.2, around=3.0)


COSTS = [1, 2, 2, 1, 1]


@pytest.mark.parametrize("seconds", [5, 10, 30, 100, 500])
def test_the_plan_fits_its_time(seconds: float) -> None:
    tried, steps = plan(seconds, PACE, COSTS, per_pass=10, most=10**9)
    assert tried * PACE.around + sum(COSTS[:tried]) * steps * PACE.step <= seconds
    assert tried == 0 or steps >= FEWEST_STEPS


@pytest.mark.parametrize("seconds", [15, 30, 100, 500])
def test_there_is_time_to_train_the_dearest_once_more(seconds: float) -> None:
    tried, steps = plan(seconds, PACE, COSTS, per_pass=10, most=10**9, again=True)
    passes = sum(COSTS[:tried]) + max(COSTS[:tried])
    assert (tried + 1) * PACE.around + passes * steps * PACE.step <= seconds
    assert steps >= FEWEST_STEPS


def test_a_second_candidate_waits_until_both_have_enough_steps() -> None:
    plans = {seconds: plan(seconds, PACE, COSTS, per_pass=10, most=10**9) for seconds in (6, 60, 77, 79, 2000)}
    assert plans == {6: (0, 0), 60: (1, 285), 77: (1, 370), 79: (2, 121), 2000: (5, 600)}


def test_enough_is_five_passes_of_a_large_set() -> None:
    assert plan(160, PACE, COSTS, per_pass=50, most=10**9) == (2, 256)
    assert plan(150, PACE, COSTS, per_pass=50, most=10**9) == (1, 735)


def test_steps_are_bounded_by_passes_and_by_the_user() -> None:
    assert plan(1e6, PACE, COSTS, per_pass=2, most=10**9) == (5, 120)
    assert plan(1e6, PACE, COSTS, per_pass=2, most=12) == (5, 12)


@pytest.mark.parametrize("budget", ["", "10", "ten minutes", "0m", "-5m", "10d"])
def test_a_budget_is_a_time(budget: str) -> None:
    with pytest.raises(ValueError, match=f"budget must be a time such as 90s, 10m or 1h, got '{budget}'"):
        FinetuneConfig("photos", budget=budget)
    assert seconds_of(" 2M ") == 120


def test_another_method_has_no_budget() -> None:
    with pytest.raises(ValueError, match="method vanilla does not use budget, which is for auto"):
        FinetuneConfig("photos", method="vanilla", budget="5m").check_used()
