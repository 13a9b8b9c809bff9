"""How many runs share a GPU, and which GPUs the workers see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stochnorm import FinetuneConfig
from stochnorm.comparison.executors import executor, shares
from stochnorm.comparison.executors.local import LocalExecutor
from stochnorm.comparison.executors.shares import FULL_BATCH_PIXELS, MOST_RUNS, gpus_for, pixels_of, runs_per_gpu

H200 = 141e9


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this machine one with GPUs, as far as PyTorch says."""

    def make(count: int, memory: float = H200, cores: int = 16) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(shares, "_ASK", f"print({memory})")
        monkeypatch.setattr("stochnorm.comparison.executors.local.cores", lambda: cores)

    return make


def small(**options: object) -> FinetuneConfig:
    return FinetuneConfig("photos", **{"image_size": 128, "batch_size": 32} | options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pixels", "memory", "cores", "runs"),
    [
        (FULL_BATCH_PIXELS, H200, 16, 1),
        (2 * FULL_BATCH_PIXELS, H200, 16, 1),
        (FULL_BATCH_PIXELS / 2, H200, 16, 2),
        (FULL_BATCH_PIXELS / 2 + 1, H200, 16, 1),
        (FULL_BATCH_PIXELS / 100, H200, 16, MOST_RUNS),
        (FULL_BATCH_PIXELS / 100, H200, 3, 3),
        (FULL_BATCH_PIXELS / 100, H200, 0.5, 1),
        (FULL_BATCH_PIXELS / 100, 4.5e9, 16, 2),
        (FULL_BATCH_PIXELS / 100, 1e9, 16, 1),
    ],
)
def test_runs_share_what_one_does_not_fill(pixels: float, memory: float, cores: float, runs: int) -> None:
    assert runs_per_gpu(pixels, memory, cores) == runs


def test_pixels_are_those_of_a_part_of_the_batch_at_the_size_of_the_weights() -> None:
    assert pixels_of(small()) == 32 * 128**2
    assert pixels_of(small(accumulate=3)) == 11 * 128**2
    assert pixels_of(small(image_size=0, backbone="torchvision/inception_v3")) == 32 * 299**2


def test_small_runs_share_gpus_by_default(gpus: Callable[..., None], tmp_path: Path) -> None:
    def local(workers: int = 0, processes: int = 1, *configs: FinetuneConfig) -> LocalExecutor:
        return LocalExecutor(workers, 0, processes, tmp_path, configs)

    gpus(2)
    shared = local(0, 1, small())
    assert shared.slots == 8
    assert shared._gpus == [["0"], ["1"]] * 4
    assert shared._threads == 2
    assert local(0, 1, small(), small(batch_size=64, image_size=224)).slots == 2, "the largest run decides"
    assert local(3, 1, small())._gpus == [["0"], ["1"], ["0"]]
    assert local(0, 2, small())._gpus == [["0", "1"]]
    on_cpu = local(0, 4, small(device="cpu"))
    assert on_cpu.slots == 4
    assert on_cpu._gpus == [[]] * 4


def test_visible_gpus_keep_their_names(gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-1f")
    assert gpus_for([small()], 1) == ["5", "GPU-1f"]
    assert gpus_for([small(device="cpu")], 3) == []


def test_more_processes_than_gpus_are_one_error(gpus: Callable[..., None], tmp_path: Path) -> None:
    def start(processes: int, device: str) -> int:
        config = small(device=device)
        return executor("local", workers=0, threads=0, processes=processes, logs=tmp_path, configs=[config]).slots

    gpus(2)
    with pytest.raises(ValueError, match="processes 3 need a GPU each, but this machine has 2; give --processes 2"):
        start(3, "auto")
    assert start(3, "cpu") == 5
    gpus(0)
    assert start(3, "auto") == 5
    with pytest.raises(ValueError, match="device cuda is not available"):
        start(1, "cuda")


def test_the_memory_of_gpus_is_asked_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: pytest.fail("this would start CUDA here"))
    monkeypatch.setattr(shares, "_ASK", "import sys; print(int(sys.argv[1]) * 1000)")
    assert shares.smallest_memory(2) == 2000.0
    monkeypatch.setattr(shares, "_ASK", "raise SystemExit('no driver')")
    assert shares.smallest_memory(1) == 0.0
    assert runs_per_gpu(FULL_BATCH_PIXELS / 100, 0.0, 16) == 1


def test_a_gpu_tells_its_memory(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    assert shares.smallest_memory(1) == torch.cuda.get_device_properties(0).total_memory
