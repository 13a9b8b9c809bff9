"""A job on the device of `--device`: every method trains, a run resumes, its model predicts as on the CPU."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stochnorm import FinetuneConfig, evaluate, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run

Configure = Callable[..., FinetuneConfig]
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


def test_a_model_of_the_device_is_evaluated_alike_on_a_cpu(
    photos: Path, tmp_path: Path, config: Configure, job_device: str
) -> None:
    finetune(config(photos, tmp_path / "run", device=job_device), quiet=True)
    test = json.loads((tmp_path / "run/result.json").read_text())["test"]
    again = evaluate(tmp_path / "run", device="cpu", precision="32")
    assert again.metrics["loss"] == pytest.approx(test["loss"], rel=1e-3)
    assert again.metrics["images"] == test["images"]
