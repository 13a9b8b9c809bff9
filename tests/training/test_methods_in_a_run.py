"""The methods in a run, end to end: which were active, and on what."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stochnorm import (
    BSSConfig,
    DELTAConfig,
    FinetuneConfig,
    L2SPConfig,
    finetune,
)
from stochnorm.methods.catalogue import check_method
from stochnorm.models.weights import read_state_dict
from stochnorm.nn.stochastic import _StochNorm
from stochnorm.runs.directory import Run
from stochnorm.training.step import TrainingStep

Configure = Callable[..., FinetuneConfig]

METHODS = [
    # method, class of the normalization layers, whether they take batch statistics, terms, weight decay
    ("vanilla", "BatchNorm2d", True, [], 5e-4),
    ("stochnorm", "StochNorm2d", True, [], 5e-4),
    ("bin", "BatchInstanceNorm2d", True, [], 5e-4),
    ("frozen", "FrozenNorm2d", False, [], 5e-4),
    ("l2sp", "BatchNorm2d", True, ["l2sp"], 0.0),
    ("delta", "BatchNorm2d", True, ["delta"], 0.0),
    ("bss", "BatchNorm2d", True, ["bss"], 5e-4),
    ("lwf", "BatchNorm2d", True, ["lwf"], 5e-4),
    ("cotuning", "BatchNorm2d", True, ["cotuning"], 5e-4),
    ("bituning", "BatchNorm2d", True, ["bituning"], 5e-4),
    ("stochnorm+lwf+cotuning", "StochNorm2d", True, ["lwf", "cotuning"], 5e-4),
    ("stochnorm+l2sp", "StochNorm2d", True, ["l2sp"], 0.0),
    ("bss+stochnorm", "StochNorm2d", True, ["bss"], 5e-4),
    ("bin+l2sp", "BatchInstanceNorm2d", True, ["l2sp"], 0.0),
    ("delta+bss", "BatchNorm2d", True, ["delta", "bss"], 0.0),
    ("frozen+delta", "FrozenNorm2d", False, ["delta"], 0.0),
    ("stochnorm+l2sp+delta+bss", "StochNorm2d", True, ["l2sp", "delta", "bss"], 0.0),
]


@pytest.mark.parametrize(("method", "kind", "training", "terms", "weight_decay"), METHODS)
def test_a_run_leaves_everything_and_the_method_was_active(
    photos: Path,
    tmp_path: Path,
    modes: list[tuple[str, bool]],
    weights: str,
    method: str,
    kind: str,
    training: bool,
    terms: list[str],
    weight_decay: float,
    config: Configure,
) -> None:
    alone = {"l2sp": L2SPConfig(beta=0), "delta": DELTAConfig(beta=0)}  # the penalty of the backbone
    settings: dict[str, Any] = {name: value for name, value in alone.items() if name in method}
    settings |= {"method": method, "weights": weights, "report": True}
    result = finetune(config(photos, tmp_path / "run", **settings), quiet=True)

    assert modes == [(kind, training)] * 12
    compared = {"delta_layers": ["act1", "layer1", "layer2", "layer3"]} if "delta" in terms else {}
    assert result.record["method"] == {
        "name": "+".join(check_method(method)),
        "normalization": {kind: 15},
        "terms": terms,
        "weight_decay": weight_decay,
        **compared,
    }
    penalties = {name: value for name, value in Run(tmp_path / "run").read_metrics()[-1].items() if "penalty" in name}
    assert list(penalties) == [f"penalty_{term}" for term in terms]
    assert all(value > 0 for value in penalties.values())
    start = read_state_dict(Path(weights))
    end = read_state_dict(tmp_path / "run/model.safetensors")
    assert torch.equal(start["bn1.running_mean"], end["bn1.running_mean"]) == (not training)
    assert not torch.equal(start["bn1.weight"], end["bn1.weight"])
    assert sum(key.endswith(".rho") for key in end) == (15 if "bin" in method else 0)
    run = Run(tmp_path / "run")
    assert {path.name for path in run.path.iterdir()} == {
        "config.json", "split.csv", "images.csv", "metrics.jsonl", "curves.png", "curves.svg", "model.safetensors",
        "test_predictions.csv", "confusion_matrix.csv", "result.json", "report.html", "csv",
    }  # fmt: skip
    assert [record["step"] for record in run.read_metrics()] == [4, 8, 12]
    assert result.record["images"] == {"train": 18, "val": 6, "test": 6}
    assert result.test == json.loads(run.result.read_text())["test"]
    assert result.test is not None
    assert result.test["images"] == 6
    rows = list(csv.DictReader(run.predictions.read_text().splitlines()))
    accuracy = 100 * sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    assert accuracy == pytest.approx(result.test["top1"])
    best = max(run.read_metrics(), key=lambda r: (r["val_top1"], -r["val_loss"]))
    assert result.record["selected"]["step"] == best["step"]
    assert result.validation["top1"] == pytest.approx(best["val_top1"])


@pytest.mark.parametrize(("method", "field", "settings"), [
    ("l2sp", "l2sp", (L2SPConfig(alpha=1e-9, beta=0), L2SPConfig(alpha=1.0, beta=0))),
    ("frozen+delta", "delta", (DELTAConfig(alpha=1e-9, beta=0), DELTAConfig(alpha=1e-2, beta=0))),
    ("bss", "bss", (BSSConfig(eta=1e-9), BSSConfig(eta=10.0))),
])  # fmt: skip
def test_a_strong_penalty_leaves_less_of_what_it_penalizes(
    photos: Path, tmp_path: Path, weights: str, method: str, field: str, settings: tuple[Any, Any], config: Configure
) -> None:
    def left(strength: Any) -> float:
        out = tmp_path / f"{strength}"
        finetune(config(photos, out, method=method, weights=weights, steps=24, **{field: strength}), quiet=True)
        scale = strength.eta if field == "bss" else strength.alpha
        return Run(out).read_metrics()[-1][f"penalty_{field}"] / scale

    weak, strong = (left(strength) for strength in settings)
    assert strong < 0.7 * weak


@pytest.mark.parametrize("freeze", ["affine", "both"])
def test_what_is_frozen_stays_in_the_layers_of_the_pattern(
    photos: Path, tmp_path: Path, weights: str, freeze: str, config: Configure
) -> None:
    settings = {"method": "frozen", "freeze": freeze, "norm_layers": "layer[34]", "weights": weights}
    result = finetune(config(photos, tmp_path / "run", **settings), quiet=True)
    start, end = read_state_dict(Path(weights)), read_state_dict(tmp_path / "run/model.safetensors")
    stayed = {key for key in start if torch.equal(start[key], end[key])}
    for layer, inside in (("layer2.0.bn1", False), ("layer4.0.bn1", True)):
        assert (f"{layer}.weight" in stayed) == inside
        assert (f"{layer}.running_mean" in stayed) == (inside and freeze == "both")
    assert result.record["method"]["affine_frozen"] == sum("weight" in key for key in stayed) > 0


def test_batch_instance_normalization_follows_the_pattern(photos: Path, tmp_path: Path, config: Configure) -> None:
    finetune(config(photos, tmp_path / "run", method="bin", norm_layers="layer[34]", steps=2), quiet=True)
    rho = {key for key in read_state_dict(tmp_path / "run/model.safetensors") if key.endswith(".rho")}
    assert rho
    assert all(key.startswith(("layer3", "layer4")) for key in rho)


def test_weight_decay_can_leave_out_normalization_and_biases(
    photos: Path, tmp_path: Path, weights: str, config: Configure
) -> None:
    ends = []
    for decay_norm_bias in (True, False):
        settings = {"decay_norm_bias": decay_norm_bias, "weight_decay": 0.5, "steps": 2, "weights": weights}
        finetune(config(photos, tmp_path / str(decay_norm_bias), **settings), quiet=True)
        ends.append(read_state_dict(tmp_path / str(decay_norm_bias) / "model.safetensors")["layer4.0.bn1.weight"])
    assert ends[0].mean() < ends[1].mean() - 0.005


def test_inception_with_random_weights_trains_from_statistics_of_the_images(
    photos: Path, tmp_path: Path, config: Configure
) -> None:
    """With 0 and 1, which random weights come with, its 94 layers explode."""
    settings = {"backbone": "torchvision/inception_v3", "method": "stochnorm+delta", "image_size": 96, "steps": 2}
    settings |= {"delta": DELTAConfig(attention="uniform"), "auxiliary": False, "lr": 0.003, "batch_size": 4}
    result = finetune(config(photos, tmp_path / "run", **settings), quiet=True)
    (record,) = Run(tmp_path / "run").read_metrics()
    assert record["train_loss"] < 100
    assert 0 < record["penalty_delta"] < 1e4
    assert result.validation["loss"] < 100


def test_p_follows_its_schedule(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    seen = []
    original = TrainingStep.compute

    def spy(self: TrainingStep, *inputs: torch.Tensor) -> None:
        seen.append(round(next(m.p for m in self.network.modules() if isinstance(m, _StochNorm)), 4))
        original(self, *inputs)

    monkeypatch.setattr(TrainingStep, "compute", spy)
    options = {"p": 1.0, "p_end": 0.45, "p_schedule": "linear"}
    finetune(config(photos, tmp_path / "run", **options), quiet=True)
    assert seen == [round(1 - 0.05 * step, 4) for step in range(12)]


def test_stochnorm_with_p_zero_and_held_statistics_is_frozen(
    photos: Path, tmp_path: Path, weights: str, config: Configure
) -> None:
    held = {"method": "stochnorm", "p": 0.0, "norm_momentum": 0.0}
    for name, settings in (("frozen", {"method": "frozen"}), ("held", held), ("moving", held | {"norm_momentum": 0.1})):
        settings |= {"weights": weights, "steps": 5, "eval_every": 5, "select": "last"}
        finetune(config(photos, tmp_path / name, **settings), quiet=True)
    frozen, held_end, moving = (
        read_state_dict(tmp_path / name / "model.safetensors") for name in ("frozen", "held", "moving")
    )
    start = read_state_dict(Path(weights))
    for key in (key for key in frozen if not key.endswith("num_batches_tracked")):
        torch.testing.assert_close(held_end[key], frozen[key], rtol=1e-6, atol=1e-6)
        assert torch.equal(held_end[key], start[key]) == ("running" in key)
    assert not torch.equal(moving["bn1.running_mean"], start["bn1.running_mean"])


def test_p_rises_from_zero(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure) -> None:
    seen = []
    original = TrainingStep.compute

    def spy(self: TrainingStep, *inputs: torch.Tensor) -> None:
        seen.append(round(next(m.p for m in self.network.modules() if isinstance(m, _StochNorm)), 4))
        original(self, *inputs)

    monkeypatch.setattr(TrainingStep, "compute", spy)
    options = {"p": 0.0, "p_end": 0.6, "p_schedule": "linear", "norm_momentum": 0.0, "lr": 1e-3}
    result = finetune(config(photos, tmp_path / "run", **options), quiet=True)
    assert seen == [round(0.6 * step / 11, 4) for step in range(12)]
    assert result.validation["loss"] < 100


def test_a_method_of_the_source_head_says_what_it_needs(photos: Path, tmp_path: Path, config: Configure) -> None:
    for method in ("lwf", "cotuning"):
        with pytest.raises(ValueError, match="random weights have no source classes"):
            finetune(config(photos, tmp_path / method, method=method), quiet=True)


def test_a_pattern_picks_the_layers(photos: Path, tmp_path: Path, config: Configure) -> None:
    result = finetune(config(photos, tmp_path / "run", norm_layers=r"layer[34]"), quiet=True)
    kinds = result.record["method"]["normalization"]
    assert set(kinds) == {"BatchNorm2d", "StochNorm2d"}
    with pytest.raises(ValueError, match="nothing"):
        finetune(config(photos, tmp_path / "none", norm_layers="nowhere"), quiet=True)


@pytest.mark.parametrize("how", ["zero_one", "target"])
def test_initial_statistics(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, how: str, config: Configure
) -> None:
    seen: list[torch.Tensor] = []
    original = TrainingStep.compute

    def spy(self: TrainingStep, *inputs: torch.Tensor) -> None:
        seen.append(self.network.state_dict()["bn1.running_mean"].clone())
        original(self, *inputs)

    monkeypatch.setattr(TrainingStep, "compute", spy)
    inherited = read_state_dict(Path(weights))
    inherited["bn1.running_mean"].fill_(3.0)
    torch.save(inherited, weights)
    for name, statistics in (("run", how), ("inherited", "pretrained")):
        options = {"statistics": statistics, "weights": weights, "steps": 1}
        finetune(config(photos, tmp_path / name, **options), quiet=True)
    assert (seen[1] == 3).all()
    assert (seen[0] == 0).all() if how == "zero_one" else 0 < seen[0].abs().min() < 3


def test_gradients_of_parts_add_up_to_the_batchs(photos: Path, tmp_path: Path, weights: str, config: Configure) -> None:
    """Exactly, where the parts do not change the normalization: with frozen statistics."""
    options = {"method": "frozen+l2sp+delta", "steps": 3, "eval_every": 3, "select": "last", "weights": weights}
    finetune(config(photos, tmp_path / "whole", **options), quiet=True)
    finetune(config(photos, tmp_path / "parts", accumulate=4, **options), quiet=True)
    whole, parts = (read_state_dict(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], rtol=1e-3, atol=1e-5)
    first, second = (Run(tmp_path / name).read_metrics()[0] for name in ("whole", "parts"))
    assert first["train_loss"] == pytest.approx(second["train_loss"], rel=1e-4)


def test_parts_move_the_statistics_as_far_as_a_batch(photos: Path, tmp_path: Path, config: Configure) -> None:
    from stochnorm.training.prepare import _momentum

    settings = config(photos, tmp_path, accumulate=4, norm_momentum=0.2)
    assert (1 - _momentum(0.1, settings)) ** 4 == pytest.approx(0.8)  # type: ignore[operator]
    assert _momentum(0.1, config(photos, tmp_path)) == 0.1
    assert _momentum(None, config(photos, tmp_path, accumulate=4)) is None


@pytest.mark.parametrize(("backbone", "precision"), [("test_efficientnet", "32"), ("test_resnet", "bf16")])
def test_stochnorm_with_p_one_is_vanilla_bit_for_bit(
    photos: Path, tmp_path: Path, config: Configure, backbone: str, precision: str
) -> None:
    """Over a whole job, for layers with a built-in activation, too."""
    options = {"backbone": backbone, "precision": precision, "steps": 6, "eval_every": 3}
    for name, settings in (("vanilla", {"method": "vanilla"}), ("one", {"method": "stochnorm", "p": 1.0})):
        finetune(config(photos, tmp_path / name, **options, **settings), quiet=True)
    first, second = (read_state_dict(tmp_path / name / "model.safetensors") for name in ("vanilla", "one"))
    assert first.keys() == second.keys()
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []
