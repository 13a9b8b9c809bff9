"""SAM in a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

import stochnorm.training.job
from processes import torchrun
from stochnorm import FinetuneConfig, SAMConfig, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.nn.stochastic import _StochNorm
from stochnorm.runs.directory import Run
from stochnorm.training.step import TrainingStep

Configure = Callable[..., FinetuneConfig]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(path / "model.safetensors")


def assert_same_bits(first: Path, second: Path, *, same: bool = True) -> None:
    ours, theirs = weights_of(first), weights_of(second)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours) == same


@pytest.mark.parametrize("method", ["vanilla", "stochnorm", "frozen+l2sp"])
def test_a_distance_of_zero_is_the_plain_step_bit_for_bit(
    photos: Path, tmp_path: Path, config: Configure, method: str
) -> None:
    last = {"select": "last", "lr": 0.002, "steps": 6}
    finetune(config(photos, tmp_path / "plain", method=method, **last), quiet=True)
    for rho in (0.0, 0.05):
        out = tmp_path / f"{rho}"
        result = finetune(config(photos, out, method=f"{method}+sam", sam=SAMConfig(rho), **last), quiet=True)
        assert "sam" in result.record["method"]["name"]
        assert_same_bits(tmp_path / "plain", out, same=rho == 0)


def test_a_step_takes_the_gradient_at_the_sharpest_point(
    photos: Path, tmp_path: Path, weights: str, config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of plain SGD: what the weights moved by is the gradient at w + rho g / |g|, recomputed by hand."""
    steps: list[tuple[TrainingStep, Any]] = []
    original = TrainingStep.compute

    def spy(self: TrainingStep, *inputs: torch.Tensor) -> None:
        steps.append((self, [tensor.clone() for tensor in inputs]))
        original(self, *inputs)

    monkeypatch.setattr(TrainingStep, "compute", spy)
    lr, rho = 0.05, 0.2
    plain = {"momentum": 0.0, "weight_decay": 0.0, "head_lr_factor": 1.0, "lr": lr, "weights": weights, "steps": 1}
    config_of = config(photos, tmp_path / "run", method="frozen+sam", sam=SAMConfig(rho), eval_every=1, **plain)
    finetune(config_of, quiet=True)
    ((step, inputs),) = steps
    network, end = step.network.train(), weights_of(tmp_path / "run")
    start = dict(read_state_dict(Path(weights)))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # the new head is drawn by the seed; the step's own gradient, still there, leads back to it
            parameter.copy_(start[name] if name in start and "fc" not in name else end[name] + lr * parameter.grad)
    used = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    def gradient() -> list[torch.Tensor]:
        network.zero_grad()
        images, targets = step.make(*inputs)
        nn.functional.cross_entropy(network(images), targets).backward()  # type: ignore[no-untyped-call]
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    g = gradient()
    length = torch.cat([each.flatten() for each in g]).norm()
    with torch.no_grad():
        for parameter, each in zip(network.parameters(), g, strict=True):
            parameter += rho * each / length
    ours, by_hand, at_start = (torch.cat([each.flatten() for each in found]) for found in (used, gradient(), g))
    assert (ours - by_hand).norm() < 1e-3 * by_hand.norm()
    assert (ours - at_start).norm() > 0.05 * at_start.norm()


def test_statistics_move_once_a_step_and_both_passes_have_one_mask(
    photos: Path, tmp_path: Path, config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, int]] = []

    def remember(module: nn.Module, *_: Any) -> None:
        if isinstance(module, _StochNorm) and module.training and module is seen_layer(module):
            assert module._last_step is not None
            seen.append((module._last_step[0].clone(), int(module.num_batches_tracked)))  # type: ignore[arg-type]

    first: list[nn.Module] = []

    def seen_layer(module: nn.Module) -> nn.Module:
        first[:] = first or [module]
        return first[0]

    handle = nn.modules.module.register_module_forward_hook(remember)  # type: ignore[no-untyped-call]
    try:
        finetune(config(photos, tmp_path / "run", method="stochnorm+sam", steps=3), quiet=True)
    finally:
        handle.remove()
    masks, counts = [mask for mask, _ in seen], [count - seen[0][1] for _, count in seen]
    assert len(seen) == 6
    assert all(torch.equal(masks[i], masks[i + 1]) for i in (0, 2, 4))
    assert not torch.equal(masks[0], masks[2])
    assert counts[0::2] == [0, 1, 2]
    assert weights_of(tmp_path / "run")["bn1.num_batches_tracked"] == seen[0][1] + 2


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"ema": 0.9, "clip_grad": 1.0}, {"optimizer": "adamw"}])
def test_an_interrupted_run_resumes_to_the_same_bits(
    photos: Path, tmp_path: Path, config: Configure, stop_at: Callable[..., None], options: dict[str, Any]
) -> None:
    given = {"method": "stochnorm+sam+bss", "lr": 0.002} | options
    finetune(config(photos, tmp_path / "whole", **given), quiet=True)
    stop_at(5, config(photos, tmp_path / "parts", **given))
    finetune(config(photos, tmp_path / "parts", resume=True, **given), quiet=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    first, second = (Run(tmp_path / name).read_metrics()[-1] for name in ("whole", "parts"))
    assert first["train_loss"] == second["train_loss"]


def test_each_part_of_a_batch_climbs_by_itself(photos: Path, tmp_path: Path, weights: str, config: Configure) -> None:
    """Of a batch that is one part twice, both parts climb to the same point: the step is that of the part alone."""
    step_of: dict[str, list[torch.Tensor]] = {}
    for name, accumulate in (("parts", 2), ("whole", 1)):
        made: list[TrainingStep] = []
        original = TrainingStep.compute

        def spy(self: TrainingStep, *inputs: torch.Tensor, _original: Any = original, _made: Any = made) -> None:
            _made.append(self)
            halves = [tensor[:4].repeat(2, *[1] * (tensor.ndim - 1)) for tensor in inputs]
            _original(self, *halves)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainingStep, "compute", spy)
            options = {"method": "frozen+sam", "steps": 1, "eval_every": 1, "weights": weights}
            finetune(config(photos, tmp_path / name, accumulate=accumulate, **options), quiet=True)
        step_of[name] = [p.grad.clone() for p in made[0].network.parameters() if p.grad is not None]
    for parts, whole in zip(step_of["parts"], step_of["whole"], strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


def test_the_loss_scale_of_float16_does_not_change_the_direction(
    photos: Path, tmp_path: Path, config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, where Fabric offers no float16: a scale of a power of two leaves every bit of the step as it is."""

    class Plain(MixedPrecision):
        def forward_context(self) -> Any:
            return torch.autocast("cpu", enabled=False)

        def convert_input(self, data: Any) -> Any:
            return data

    def launch(scale: float) -> Callable[..., Fabric]:
        def make(device: str, precision: str, model: nn.Module | None = None) -> Fabric:
            scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
            return Fabric(accelerator="cpu", devices=1, plugins=Plain("16-mixed", "cpu", scaler))

        return make

    for scale in (1.0, 2.0**10):
        monkeypatch.setattr(stochnorm.training.job, "launch", launch(scale))
        settings = config(photos, tmp_path / f"{scale:g}", method="stochnorm+sam", steps=4, select="last")
        finetune(settings, quiet=True)
    first, second = weights_of(tmp_path / "1"), weights_of(tmp_path / "1024")
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-4, atol=1e-5)


def test_compiled_code_is_refused_in_a_line(photos: Path, config: Configure) -> None:
    with pytest.raises(ValueError, match=r"sam cannot work with compile True: .* mask.*; remove --compile$"):
        config(photos, method="stochnorm+sam", compile=True).check_used()


SCRIPT = """
import os, sys, torch
from stochnorm import FinetuneConfig, finetune
from stochnorm.training.step import TrainingStep

steps = []
original = TrainingStep.compute
def spy(self, *inputs):
    original(self, *inputs)
    steps.append([p.detach().clone() for p in self.network.parameters()])
TrainingStep.compute = spy
finetune(FinetuneConfig.load(sys.argv[1]), quiet=True)
torch.save(steps[-1], f"{sys.argv[2]}/{os.environ['RANK']}.pt")
"""


def test_processes_climb_apart_and_step_together(photos: Path, tmp_path: Path, config: Configure) -> None:
    script, settings = tmp_path / "job.py", tmp_path / "settings.json"
    script.write_text(SCRIPT)
    given = asdict(config(photos, tmp_path / "run", method="stochnorm+sam", steps=3, accumulate=2))
    settings.write_text(json.dumps(given))
    torchrun(script, settings, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))
