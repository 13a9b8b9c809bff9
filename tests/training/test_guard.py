"""When a training ends before its last step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from stochnorm import FinetuneConfig
from stochnorm.training.guard import chance_of, collapsed, judge, out_of_patience, rate_to_try


def record(step: int, train: float, val: float, score: float | None) -> dict[str, Any]:
    return {"step": step, "score": "top1", "train_loss": train, "val_loss": val, "val_top1": score}


BAD = [record(40, 2.0, 1.5, 30.0), record(80, 1.9, 1.4, 30.0)]


def test_two_validations_at_chance_above_the_start_are_a_collapse() -> None:
    assert "1.9" in collapsed(BAD, 160, 1.1, 40.0)
    assert collapsed(BAD[:1], 160, 1.1, 40.0) == ""
    assert collapsed(BAD[:1], 40, 1.1, 40.0)  # the last of the run


@pytest.mark.parametrize(
    "healthy",
    [
        record(80, 1.0, 1.4, 30.0),  # it learns
        record(80, 1.9, 1.0, 30.0),  # as good as the start on validation
        record(80, 1.9, 1.4, 41.0),  # above chance
        record(80, 1.9, 1.4, None),  # nobody knows
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_one_good_sign_is_none(healthy: dict[str, Any], place: int) -> None:
    history = list(BAD)
    history[place] = healthy | {"step": BAD[place]["step"]}
    assert collapsed(history, 160, 1.1, 40.0) == ""


def test_the_beginning_is_none() -> None:
    early = [record(10, 9.0, 9.0, 0.0), record(20, 9.0, 9.0, 0.0)]
    assert collapsed(early, 20, 1.1, 40.0) == ""
    assert collapsed(BAD, 1000, 1.1, 40.0) == ""


def test_the_loss_of_the_start_is_that_of_the_labels() -> None:
    config = FinetuneConfig("photos", steps=160)
    above, below = ([r | {"train_loss": loss, "val_loss": loss} for r in BAD] for loss in (1.12, 1.08))
    assert math.log(3) == pytest.approx(1.0986, abs=1e-4)
    assert judge(above, config, 3, torch.arange(30) % 3).collapse
    assert not judge(below, config, 3, torch.arange(30) % 3).collapse
    assert judge(below, config, 3, torch.zeros(30, 3)).collapse  # ln 2


def test_the_largest_class_is_chance() -> None:
    assert chance_of(4, 0.9) == 90.0
    assert chance_of(80, 0.01) == 1.875


def test_patience_counts_the_validations_since_the_best() -> None:
    history = [record(n, 1.0, 1.0, score) for n, score in enumerate((50.0, 60.0, 60.0, 55.0))]
    assert [out_of_patience(history, patience) for patience in (0, 1, 2, 3)] == [False, True, True, False]
    assert not out_of_patience(history[:2], 1)


def test_no_rate_above_the_default_is_advised() -> None:
    assert [rate_to_try(lr) for lr in (1e30, 0.02, 0.003)] == [0.003, 0.002, 0.0003]
