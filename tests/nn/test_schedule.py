"""p over the steps of a training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stochnorm.nn import convert, schedule, set_p

pytestmark = pytest.mark.usefixtures("device")


def test_constant_is_the_start() -> None:
    assert {schedule("constant", 0.3, 0.9, step, 10) for step in range(12)} == {0.3}


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.5), (0.1, 0.7), (0.0, 1.0)])
def test_it_goes_from_start_to_end_and_stays(kind: str, start: float, end: float) -> None:
    values = [schedule(kind, start, end, step, 101) for step in range(120)]  # type: ignore[arg-type]
    assert values[0] == start
    assert set(values[100:]) == {end}
    assert values[50] == pytest.approx((start + end) / 2)
    assert values == sorted(values, reverse=start > end)
    assert all(0 <= p <= 1 for p in values)


def test_golden_values() -> None:
    assert schedule("linear", 0.2, 0.6, step=1, steps=5) == pytest.approx(0.3)
    assert schedule("cosine", 0.2, 0.6, step=1, steps=5) == pytest.approx(0.2 + 0.4 * (1 - math.cos(math.pi / 4)) / 2)


def test_a_training_of_one_step_is_at_the_start() -> None:
    assert schedule("cosine", 0.2, 0.6, step=0, steps=1) == 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("square", 0.5, 0.5, 0, 2), "constant, linear or cosine, got 'square'"),
        (("linear", 1.5, 0.5, 0, 2), r"p must be in \[0, 1\], got 1.5"),
        (("linear", 0.5, -1, 0, 2), r"p must be in \[0, 1\], got -1"),
        (("linear", 0.5, 0.5, -1, 2), "got step -1 of 2"),
        (("linear", 0.5, 0.5, 0, 0), "got step 0 of 0"),
    ],
)
def test_what_is_no_schedule_is_an_error(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(*arguments)  # type: ignore[arg-type]


def test_set_p_reaches_every_layer_and_is_what_training_uses() -> None:
    model = convert(nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(2))), p=0.5)
    set_p(model, 0.0)
    assert [model[0].p, model[1][0].p] == [0.0, 0.0]
    x = torch.randn(4, 2, 3, 3) + 3
    torch.testing.assert_close(model[0](x), x / (1 + 1e-5) ** 0.5)


def test_set_p_without_a_layer_or_with_a_wrong_p_is_an_error() -> None:
    with pytest.raises(ValueError, match="Sequential has no StochNorm layer; call convert"):
        set_p(nn.Sequential(nn.BatchNorm2d(2)), 0.5)
    model = convert(nn.BatchNorm2d(2), p=0.5)
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got 2"):
        set_p(model, 2)
    assert model.p == 0.5
