"""The host runs a few steps ahead of the device. A list of steps stands for the device's queue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stochnorm import FinetuneConfig, finetune
from stochnorm.training.pace import Pace, pace_of


class Queue:
    """A device that does nothing until somebody waits for it."""

    def __init__(self) -> None:
        self.given = self.done = self.events = 0

    def event(self) -> Point:
        self.events += 1
        return Point(self)


class Point:
    def __init__(self, queue: Queue) -> None:
        self.queue, self.at = queue, 0

    def record(self) -> None:
        self.at = self.queue.given

    def synchronize(self) -> None:
        self.queue.done = max(self.queue.done, self.at)


def test_four_steps_are_queued_at_most_and_none_is_waited_for_earlier() -> None:
    queue = Queue()
    pace = Pace(queue.event)
    waiting = []
    for _ in range(10):
        queue.given += 1
        pace()
        waiting.append(queue.given - queue.done)
    assert waiting == [1, 2, 3, 4, 4, 4, 4, 4, 4, 4]
    assert queue.events == 4


def test_a_training_keeps_the_pace(
    photos: Path, tmp_path: Path, config: Callable[..., FinetuneConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once after each step."""
    queue = Queue()
    pace = Pace(queue.event)

    def step() -> None:
        queue.given += 1
        pace()

    monkeypatch.setattr("stochnorm.training.loop.pace_of", lambda device: step)
    finetune(config(photos, tmp_path / "run", steps=12), quiet=True)
    assert (queue.given, queue.done) == (12, 8)


def test_the_pace_of_a_device(device: torch.device) -> None:
    pace = pace_of(device)
    values = torch.zeros(3)
    for _ in range(9):
        values += 1
        pace()
    assert values.tolist() == [9, 9, 9]
    assert isinstance(pace, Pace) == (device.type == "cuda")
