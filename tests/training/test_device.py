"""A job on the device of `--device`: every method trains, a run resumes, its model predicts as on the CPU."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stochnorm.training.loop
from stochnorm import FinetuneConfig, evaluate, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run
from stochnorm.training.captured import CapturedStep

Configure = Callable[..., FinetuneConfig]
GRAPHLESS = {
    "cpu has no CUDA graphs",
    "the loss scale of float16 was not written for graphs",
    "bss: the eigenvalue solver reads an error code on the host",
}
METHODS = ["vanilla", "stochnorm", "bin", "frozen", "l2sp", "delta", "bss", "stochnorm+l2sp+delta+bss"]


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(
    photos: Path, tmp_path: Path, config: Configure, job_device: str, method: str, precision: str
) -> None:
    if (job_device, precision) == ("cpu", "16"):
        pytest.skip("float16 needs a GPU")
    settings = config(photos, tmp_path / "run", method=method, precision=precision, device=job_device, lr=0.001)
    result = finetune(settings, quiet=True)
    assert job_device == "cpu" or "cpu" not in result.record["environment"]["device"]
    graph = result.record["environment"]["cuda_graph"]
    if job_device == "cuda" and "bss" not in method and precision != "16":
        assert graph is True
    else:
        assert graph in GRAPHLESS
    layers = set(result.record["method"]["normalization"])
    kind = {"bin": "BatchInstanceNorm2d", "frozen": "FrozenNorm2d"}.get(method, "BatchNorm2d")
    assert layers == {"StochNorm2d" if "stochnorm" in method else kind}
    for record in Run(tmp_path / "run").read_metrics():
        assert math.isfinite(record["train_loss"])
        assert all(record[f"penalty_{term}"] > 0 for term in result.record["method"]["terms"])


def test_a_run_resumes(
    photos: Path, tmp_path: Path, config: Configure, job_device: str, stop_at: Callable[[int, FinetuneConfig], None]
) -> None:
    """To the same bits on a CPU; on a GPU to what kernels without a fixed order of summation allow."""
    whole, parts = (config(photos, tmp_path / name, device=job_device) for name in ("whole", "parts"))
    finetune(whole, quiet=True)
    stop_at(5, parts)
    finetune(FinetuneConfig(**parts.as_fields() | {"resume": True}), quiet=True)
    tolerance = {"rtol": 0.0, "atol": 0.0} if job_device == "cpu" else {"rtol": 1e-2, "atol": 1e-3}
    states = [read_state_dict(Run(tmp_path / name).model) for name in ("whole", "parts")]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, **tolerance, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("method", ["stochnorm+l2sp", "delta", "bss"])
def test_a_deterministic_run_repeats_and_resumes_to_the_same_bits(
    photos: Path,
    tmp_path: Path,
    config: Configure,
    job_device: str,
    stop_at: Callable[[int, FinetuneConfig], None],
    method: str,
) -> None:
    """On a GPU, too; on one the resumed run captures another graph."""
    first, second, parts = (
        config(photos, tmp_path / name, device=job_device, deterministic=True, method=method, steps=16, lr=0.002)
        for name in ("first", "second", "parts")
    )
    finetune(first, quiet=True)
    finetune(second, quiet=True)
    stop_at(9, parts)
    finetune(FinetuneConfig(**parts.as_fields() | {"resume": True}), quiet=True)
    weights, *others = (read_state_dict(Run(tmp_path / name).model) for name in ("first", "second", "parts"))
    for other in others:
        assert all(torch.equal(value, other[name]) for name, value in weights.items())
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("method", ["stochnorm", "stochnorm+l2sp+delta", "bin", "frozen"])
def test_a_graph_has_the_bits_of_eager_steps(
    photos: Path, tmp_path: Path, config: Configure, job_device: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """And none of its steps waits: CUDA raises."""
    if job_device != "cuda":
        pytest.skip("needs a GPU; test_captured.py does the same with a tape of operations")
    options = {"device": job_device, "deterministic": True, "method": method, "steps": 16, "lr": 0.002}
    options |= {"p": 0.9, "p_end": 0.4, "p_schedule": "linear"} if "stochnorm" in method else {}
    call = CapturedStep.__call__

    def without_waiting(self: CapturedStep, number: int, inputs: Any) -> None:
        torch.cuda.set_sync_debug_mode("error" if number > 4 else "default")
        try:
            call(self, number, inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(CapturedStep, "__call__", without_waiting)
    result = finetune(config(photos, tmp_path / "graph", **options), quiet=True)
    assert result.record["environment"]["cuda_graph"] is True
    monkeypatch.setattr(stochnorm.training.loop, "obstacle", lambda step: "asked")
    finetune(config(photos, tmp_path / "eager", **options), quiet=True)
    first, second = (read_state_dict(Run(tmp_path / name).model) for name in ("graph", "eager"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_model_of_the_device_is_evaluated_alike_on_a_cpu(
    photos: Path, tmp_path: Path, config: Configure, job_device: str
) -> None:
    finetune(config(photos, tmp_path / "run", device=job_device), quiet=True)
    test = json.loads((tmp_path / "run/result.json").read_text())["test"]
    again = evaluate(tmp_path / "run", device="cpu", precision="32")
    assert again.metrics["loss"] == pytest.approx(test["loss"], rel=1e-3)
    assert again.metrics["images"] == test["images"]
