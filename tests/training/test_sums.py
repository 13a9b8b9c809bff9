"""Sums on the device of the training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from stochnorm.training.sums import Sums

CPU = torch.device("cpu")


def test_sums_have_the_bits_of_sums_on_the_host(device: torch.device) -> None:
    sums = Sums(["loss", "total"], device)
    expected, values = [0.0, 0.0], torch.rand(50, 2, dtype=torch.float64, device=device)
    for of_step in values:
        sums.add(of_step, 8)
        expected = [before + value for before, value in zip(expected, of_step.tolist(), strict=True)]
    reading = sums.read()
    assert reading.step == 50
    assert reading.sums == {"images": 400, "loss": expected[0], "total": expected[1]}


def test_they_go_on_from_a_checkpoint_and_begin_again_after_a_validation() -> None:
    sums = Sums(["loss", "total"], CPU, step=7, start={"images": 16, "loss": 3.0})
    sums.add(torch.tensor([1.0, 2.0], dtype=torch.float64), 8)
    assert sums.read() == (8, {"images": 24, "loss": 4.0, "total": 2.0})
    sums.clear()
    assert sums.read() == (8, {"images": 0, "loss": 0.0, "total": 0.0})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_loss_that_is_not_finite_is_kept_until_it_is_read(bad: float, device: torch.device) -> None:
    sums = Sums(["loss", "total"], device, step=4)
    for total in (1.0, bad, 2.0, math.nan):
        sums.add(torch.tensor([0.0, total], dtype=torch.float64, device=device), 8)
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=f"^the loss is {bad} at step 6$"):
            sums.read()
    sums.clear()
    with pytest.raises(FloatingPointError, match=r"at step 6$"):
        sums.poll()


def test_another_value_may_be_infinite() -> None:
    sums = Sums(["score", "total"], CPU)
    sums.add(torch.tensor([math.inf, 1.0], dtype=torch.float64), 8)
    assert sums.read().sums["score"] == math.inf


def test_the_display_looks_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    sums = Sums(["total"], CPU, each_step=False)
    looked = []
    for _ in range(20):
        looked.append(sums.poll() is not None)
        now += 0.0625
    assert [place for place, seen in enumerate(looked) if seen] == [0, 4, 8, 12, 16]
    each = Sums(["total"], CPU)
    assert all(each.poll() is not None for _ in range(20))


class Slow:
    """Stands for the copy to pinned memory, which ends when the test says so."""

    def __init__(self) -> None:
        self.values: list[float] | None = None
        self.pending = self.ready = False

    def start(self, values: torch.Tensor) -> None:
        assert not self.pending
        self.values, self.pending = values.tolist(), True

    def ended(self) -> list[float] | None:
        if not self.ready:
            return None
        self.pending = self.ready = False
        return self.values


def test_a_copy_is_read_when_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values are those of the step at which it was asked for; one from before a validation is not read."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    sums: Any = Sums(["total"], CPU, each_step=False)
    sums._copy = slow = Slow()
    seen: list[Any] = []
    for step in range(12):
        sums.add(torch.ones(1, dtype=torch.float64), 2)
        slow.ready = step in (4, 9)
        seen.append(sums.poll())
        now += 0.1
    assert [(place, reading) for place, reading in enumerate(seen) if reading] == [
        (4, (1, {"images": 2, "total": 1.0})),
        (9, (6, {"images": 12, "total": 6.0})),
    ]
    sums.clear()
    slow.ready = True
    assert sums.poll() is None


def test_a_copy_of_a_gpu_is_read(device: torch.device) -> None:
    """Within a bounded number of looks; on a CPU at the first."""
    sums = Sums(["total"], device, each_step=False)
    sums.add(torch.ones(1, dtype=torch.float64, device=device), 2)
    readings = []
    for _ in range(3):
        readings.append(sums.poll())
        if device.type == "cuda":
            torch.cuda.synchronize()
    assert [reading for reading in readings if reading] == [(1, {"images": 2, "total": 1.0})]
