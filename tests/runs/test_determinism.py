"""The same bits at each repetition of a run on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils import deterministic

from stochnorm.runs.determinism import repeatable


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that the test leaves none
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


def settings() -> tuple[Any, ...]:
    cudnn, memory = torch.backends.cudnn, deterministic
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        memory.fill_uninitialized_memory,  # type: ignore[attr-defined]
        cudnn.deterministic,
        cudnn.benchmark,
        torch.get_float32_matmul_precision(),
    )


def test_settings_hold_inside_and_are_restored() -> None:
    torch.backends.cudnn.benchmark = True
    try:
        before = settings()
        with pytest.raises(KeyError), repeatable("cuda", wanted=True):
            assert settings() == (True, False, False, True, False, before[-1])
            raise KeyError
        assert settings() == before
    finally:
        torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize(("device", "wanted"), [("cpu", True), ("mps", True), ("cuda", False)])
def test_nothing_changes_elsewhere(device: str, wanted: bool) -> None:
    before = settings()
    with repeatable(device, wanted=wanted):
        assert settings() == before


def test_each_cuda_run_sets_the_workspace_since_a_process_reads_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    with repeatable("cpu", wanted=True):
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with repeatable("cuda", wanted=False):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with repeatable("cuda", wanted=True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_an_operation_that_does_not_repeat_is_an_error_that_says_what_to_do() -> None:
    text = "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set"
    advice = r"needs adaptive_avg_pool2d_backward_cuda, .* remove --deterministic"
    with pytest.raises(ValueError, match=advice), repeatable("cuda", wanted=True):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="another"), repeatable("cuda", wanted=True):
        raise RuntimeError("another")
