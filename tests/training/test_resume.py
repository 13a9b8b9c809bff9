"""A run that was stopped resumes to the same bits."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

import stochnorm.cli.demo
import stochnorm.runs.hardware
import stochnorm.training.job
import stochnorm.training.loop
from stochnorm import (
    FinetuneConfig,
    finetune,
)
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run
from stochnorm.runs.precision import Precision
from stochnorm.training.checkpoint import begun_with

Configure = Callable[..., FinetuneConfig]

StopAt = Callable[[int, FinetuneConfig], None]


@pytest.mark.parametrize(
    "method", ["stochnorm", "vanilla", "stochnorm+delta+bss", "lwf+cotuning", "stochnorm+bituning+sam"]
)
def test_an_interrupted_run_resumes_to_the_same_bits(
    photos: Path, tmp_path: Path, weights: str, method: str, config: Configure, stop_at: StopAt
) -> None:
    given = {"method": method} | ({"weights": weights} if "lwf" in method else {})  # its head is trained, too

    def lasting(run: Run) -> list[dict[str, Any]]:
        timing = {"seconds", "images_per_second"}
        return [{k: v for k, v in record.items() if k not in timing} for record in run.read_metrics()]

    finetune(config(photos, tmp_path / "whole", **given), quiet=True)
    whole = Run(tmp_path / "whole")
    for stop_after in (3, 4, 10):
        parts = Run(tmp_path / f"parts{stop_after}")
        stop_at(stop_after, config(photos, parts.path, **given))
        assert parts.checkpoint.is_file()
        resumed = finetune(config(photos, parts.path, resume=True, **given), quiet=True)
        first, second = read_state_dict(whole.model), read_state_dict(parts.model)
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert lasting(whole) == lasting(parts)
        assert resumed.record["test"] == whole.read_result()["test"]


def test_a_run_resumes_with_the_same_number_of_processes_only(
    photos: Path, tmp_path: Path, config: Configure, stop_at: StopAt
) -> None:
    settings = config(photos, tmp_path / "run")
    stop_at(5, settings)
    checkpoint = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert checkpoint["processes"] == 1
    torch.save(checkpoint | {"processes": 3}, tmp_path / "run/checkpoint.pt")
    with pytest.raises(ValueError, match=r"cannot resume .*/run with 1 processes: .* the run had 3; use as many"):
        finetune(replace(settings, resume=True), quiet=True)


@pytest.mark.parametrize("bf16_ms", [1.0, 9.0])
def test_a_resumed_run_keeps_the_precision_it_began_with(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure, stop_at: StopAt, bf16_ms: float
) -> None:
    """Although its machine would choose the other one now."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr("stochnorm.runs.precision._kept_times", lambda kind: (bf16_ms, 3.0))
    settings = config(photos, tmp_path / "run", precision="auto")
    stop_at(5, settings)
    monkeypatch.setattr("stochnorm.runs.precision._kept_times", lambda kind: (10.0 - bf16_ms, 3.0))
    environment = finetune(replace(settings, resume=True), quiet=True).record["environment"]
    chosen = "bf16" if bf16_ms < 3 else "32"
    assert environment["precision"] == {"bf16": "bf16-mixed", "32": "32-true"}[chosen]
    assert environment["precision_measured"] == {"kind": "dense", "bf16_ms": bf16_ms, "fp32_ms": 3.0, "chosen": chosen}


def test_the_precision_of_a_checkpoint_is_read_without_the_gpu_that_wrote_it(
    photos: Path, tmp_path: Path, config: Configure, stop_at: StopAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without a GPU's memory: nothing is put where the file says that its tensors lay."""
    run = Run(tmp_path / "run")
    stop_at(5, config(photos, run.path))
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    with monkeypatch.context() as patch:
        patch.setattr("torch.serialization.location_tag", lambda storage: "cuda:7")
        torch.save(checkpoint, run.checkpoint)
    with pytest.raises(RuntimeError, match=r"(?i)cuda"):
        torch.load(run.checkpoint, weights_only=True)
    assert begun_with(run, lambda: Precision("bf16")) == Precision("32", None)
    assert finetune(config(photos, run.path, resume=True), quiet=True).record["environment"]["precision"] == "32-true"


def test_a_checkpoint_that_tells_no_precision_is_resumed(
    photos: Path, tmp_path: Path, config: Configure, stop_at: StopAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier version wrote it; auto is then what that version chose."""
    settings = config(photos, tmp_path / "run", precision="auto")
    for function, name in (("resolve", "bf16"), ("resolve_unmeasured", "32")):
        monkeypatch.setattr(stochnorm.training.job, function, lambda *_, name=name: Precision(name))
    stop_at(5, settings)
    checkpoint = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert checkpoint.pop("begun_with") == {"name": "bf16", "measured": None}
    torch.save(checkpoint, tmp_path / "run/checkpoint.pt")
    assert finetune(replace(settings, resume=True), quiet=True).record["environment"]["precision"] == "32-true"


def test_the_loss_scale_of_float16_is_resumed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure, stop_at: StopAt
) -> None:
    """On the CPU, where Fabric offers no float16; the scale grows every 5 steps, so that it has a state."""
    fabrics: list[Fabric] = []

    def launch(device: str, precision: str, model: nn.Module | None = None) -> Fabric:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=5)
        fabrics.append(Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler)))
        return fabrics[-1]

    monkeypatch.setattr(stochnorm.training.job, "launch", launch)
    finetune(config(photos, tmp_path / "whole"), quiet=True)
    stop_at(4, config(photos, tmp_path / "parts"))
    finetune(config(photos, tmp_path / "parts", resume=True), quiet=True)
    whole, first, second = (fabric._precision.state_dict() for fabric in fabrics)
    assert (whole["scale"], whole["_growth_tracker"]) == (2.0**10, 2)
    assert first["_growth_tracker"] == 4
    assert second == whole


def test_a_run_does_not_resume_on_other_images(
    photos: Path, tmp_path: Path, config: Configure, stop_at: StopAt
) -> None:
    stop_at(1, config(photos, tmp_path / "run", eval_every=1))
    (photos / "red/000.png").unlink()
    with pytest.raises(ValueError, match=r"cannot resume .*: the images of .* are not those"):
        finetune(config(photos, tmp_path / "run", eval_every=1, resume=True), quiet=True)
