"""The course of the learning rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stochnorm import FinetuneConfig
from stochnorm.training.schedules import factor

STEPS = 40


def course(**settings: Any) -> list[float]:
    config = FinetuneConfig("photos", **settings)
    return [factor(step, STEPS, config) for step in range(STEPS)]


def of_torch(make: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_the_default_is_that_of_the_paper() -> None:
    assert course() == [1.0] * 27 + [0.1] * 13
    assert course(decay_at=1) == course(schedule="constant") == [1.0] * STEPS


def test_cosine_is_that_of_torch() -> None:
    expected = of_torch(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS))
    assert course(schedule="cosine") == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_one_cycle_is_that_of_torch(warmup: float) -> None:
    def make(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1.0, total_steps=STEPS + 1, pct_start=warmup or 0.3, cycle_momentum=False
        )

    config = FinetuneConfig("photos", schedule="onecycle", warmup=warmup)
    assert [factor(step, STEPS + 1, config) for step in range(STEPS)] == pytest.approx(of_torch(make))


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_warm_up_rises_in_equal_steps_to_the_whole_rate(schedule: str) -> None:
    rates = course(schedule=schedule, warmup=0.1)
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(rates) == 1.0
