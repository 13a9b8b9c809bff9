"""The settings of the optimization in a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stochnorm.training.loop
import stochnorm.training.step
from stochnorm import FinetuneConfig, build_classifier, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run
from stochnorm.training.average import Average
from stochnorm.training.guard import Verdict
from stochnorm.training.optimizer import make_optimizer

Configure = Callable[..., FinetuneConfig]
RECIPE = {
    "optimizer": "adamw", "schedule": "cosine", "warmup": 0.2, "layer_decay": 0.7, "clip_grad": 0.5, "ema": 0.9,
    "drop_path": 0.2, "lr": 0.001,
}  # fmt: skip


def test_a_run_with_all_of_it_resumes_to_the_same_bits(
    photos: Path, tmp_path: Path, config: Configure, stop_at: Callable[[int, FinetuneConfig], None]
) -> None:
    whole = finetune(config(photos, tmp_path / "whole", **RECIPE), quiet=True)
    stop_at(6, config(photos, tmp_path / "parts", **RECIPE))
    parts = finetune(config(photos, tmp_path / "parts", resume=True, **RECIPE), quiet=True)
    assert whole.validation == parts.validation
    assert Run(whole.run).model.read_bytes() == Run(parts.run).model.read_bytes()


def test_the_averaged_weights_are_validated_and_kept(
    photos: Path, tmp_path: Path, config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Average] = []

    class Spy(Average):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(stochnorm.training.loop, "Average", Spy)
    result = finetune(config(photos, tmp_path / "run", ema=0.9, select="last", steps=4), quiet=True)
    (average,) = made
    kept = read_state_dict(Run(result.run).model)
    assert all(torch.equal(kept[key], value) for key, value in average.state_dict().items())
    plain = finetune(config(photos, tmp_path / "plain", select="last", steps=4), quiet=True)
    assert not torch.equal(kept["fc.weight"], read_state_dict(Run(plain.run).model)["fc.weight"])
    (last,), (last_plain,) = (Run(path).read_metrics() for path in (result.run, plain.run))
    assert last["train_loss"] == last_plain["train_loss"]  # the training itself is the same
    assert last["val_loss"] == pytest.approx(result.validation["loss"], rel=1e-5)


def test_the_gradient_is_clipped(
    photos: Path, tmp_path: Path, config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    original = stochnorm.training.step.Rates.__enter__

    def spy(self: Any) -> None:
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"]]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        original(self)

    monkeypatch.setattr(stochnorm.training.step.Rates, "__enter__", spy)
    finetune(config(photos, tmp_path / "free", steps=3), quiet=True)
    finetune(config(photos, tmp_path / "clipped", steps=3, clip_grad=1e-3), quiet=True)
    assert min(norms[:3]) > 2e-3
    assert norms[3:] == pytest.approx([1e-3] * 3, rel=1e-2)


def test_patience_ends_a_run(photos: Path, tmp_path: Path, config: Configure) -> None:
    # with held statistics and no step, all validations are the same
    settings = config(
        photos, tmp_path / "run", method="frozen", lr=1e-30, patience=2, steps=12, eval_every=2, select="last"
    )
    result = finetune(settings, quiet=True)
    history = Run(result.run).read_metrics()
    assert result.record["stopped_early"] == history[-1]["step"] == result.record["selected"]["step"] < 12
    ranks = [(record["val_top1"], -record["val_loss"]) for record in history]
    assert ranks.index(max(ranks)) == len(ranks) - 3


def test_a_collapse_ends_the_run_with_a_rate_to_try(
    photos: Path, tmp_path: Path, config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stochnorm.training.loop, "judge", lambda history, *_: Verdict(collapse="all is lost"))
    with pytest.raises(
        FloatingPointError, match=r"^all is lost: training collapsed with lr 0\.02 \(.*try --lr 0\.002\. "
    ):
        finetune(config(photos, tmp_path / "run"), quiet=True)
    assert [record["step"] for record in Run(tmp_path / "run").read_metrics()] == [4]
    with pytest.raises(FloatingPointError, match="all is lost"):
        finetune(config(photos, tmp_path / "run", resume=True), quiet=True)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_optimizers_take_their_settings(optimizer: str) -> None:
    classifier = build_classifier("test_resnet", "random", ("a", "b"), image_size=32)
    settings: Any = {"optimizer": optimizer, "momentum": 0.8, "weight_decay": 0.02, "lr": 0.5}
    made = make_optimizer(FinetuneConfig("photos", **settings), classifier, on_gpu=False)
    assert type(made).__name__.lower() == optimizer
    backbone, head = made.param_groups
    assert (backbone["lr"], head["lr"], backbone["weight_decay"]) == (0.5, 5.0, 0.02)
    assert backbone.get("momentum", backbone.get("betas", (0,))[0]) == 0.8


def test_stochastic_depth_needs_a_network_that_has_it() -> None:
    from timm.layers.drop import DropPath

    model = build_classifier("test_resnet", "random", ("a", "b"), image_size=32, drop_path=0.3).model
    assert max(m.drop_prob for m in model.modules() if isinstance(m, DropPath)) == pytest.approx(0.3)
    for backbone in ("torchvision/resnet18", "vgg11"):
        with pytest.raises(ValueError, match=r"drop_path 0\.1 needs a network of timm with stochastic depth"):
            build_classifier(backbone, "random", ("a", "b"), image_size=64, drop_path=0.1)


def test_adamw_needs_a_momentum_below_one() -> None:
    with pytest.raises(ValueError, match="momentum must be below 1 with --optimizer adamw"):
        FinetuneConfig("photos", optimizer="adamw", momentum=1)
