"""The peak memory of a part does not hide that of the whole."""

from __future__ import annotations

import math

import pytest
import torch

from stochnorm.nn.cuda.memory import free_memory, peak_memory, peak_within, reset_peak_memory

MB = 2**20


def test_other_devices_have_no_count() -> None:
    with peak_within(torch.device("cpu")) as peak:
        torch.ones(MB)
    assert peak.used == 0
    assert free_memory(torch.device("cpu")) == math.inf


class Counter:
    """What `torch.cuda` says of a device's memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.peak = 0
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: setattr(self, "peak", self.now))
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: self.peak)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: self.now)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 100)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 5000))

    def use(self, amount: int) -> None:
        self.now += amount
        self.peak = max(self.peak, self.now)


def test_a_part_is_measured_from_its_start_and_the_whole_keeps_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    device, memory = torch.device("cuda", 7), Counter(monkeypatch)
    memory.use(30)
    reset_peak_memory(device)
    memory.use(70), memory.use(-60)
    with peak_within(device) as peak:
        memory.use(15), memory.use(-10)
    assert peak.used == 15
    assert peak_memory(device) == 100
    assert free_memory(device) == 1000 + 100 - 45
    memory.use(200)
    assert peak_memory(device) == 245
    memory.use(-200)
    reset_peak_memory(device)
    assert peak_memory(device) == 45


def test_the_peak_of_a_gpu(job_device: str) -> None:
    if job_device != "cuda":
        pytest.skip("needs a GPU")
    device = torch.device("cuda", 0)
    reset_peak_memory(device)
    before = peak_memory(device)
    large = torch.empty(64 * MB, dtype=torch.uint8, device=device)
    del large
    with peak_within(device) as peak:
        torch.empty(16 * MB, dtype=torch.uint8, device=device)
    assert peak.used == 16 * MB
    assert peak_memory(device) >= before + 64 * MB
    assert 0 < free_memory(device) < math.inf
