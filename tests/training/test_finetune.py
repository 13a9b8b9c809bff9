"""The main job, end to end, on a tiny backbone."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from rich.console import Console
from torch import nn

import stochnorm.cli.demo
import stochnorm.runs.hardware
import stochnorm.training.job
import stochnorm.training.loop
from stochnorm import (
    BSSConfig,
    DELTAConfig,
    FinetuneConfig,
    L2SPConfig,
    build_classifier,
    finetune,
    load_classifier,
    predict,
)
from stochnorm.data import Preprocessing, read_source
from stochnorm.methods.catalogue import check_method
from stochnorm.models.weights import read_state_dict
from stochnorm.nn.stochastic import _StochNorm
from stochnorm.runs.directory import Run
from stochnorm.training.display import Display
from stochnorm.training.loop import selected

Configure = Callable[..., FinetuneConfig]


@pytest.fixture
def tiny(tiny: dict[str, Any]) -> dict[str, Any]:
    return tiny | {"lr": 0.02}


def stop_at(step: int, settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs until Ctrl-C comes in the given step."""
    steps = 0
    original = stochnorm.training.loop._check_finite

    def count(*args: Any) -> None:
        nonlocal steps
        steps += 1
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(stochnorm.training.loop, "agreed", lambda fabric, stop: steps >= step)
        patch.setattr(stochnorm.training.loop, "_check_finite", count)
        with pytest.raises(KeyboardInterrupt, match=rf"stopped after step {step} of"):
            finetune(settings, quiet=True)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file of weights, whose moving statistics are inherited."""
    path = tmp_path / "weights.pth"
    torch.save(build_classifier("test_resnet", "random", ("a", "b"), image_size=32).model.state_dict(), path)
    return str(path)


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Kind and training mode of the first normalization layer, per training step."""
    seen: list[tuple[str, bool]] = []
    original = stochnorm.training.loop._gradients

    def spy(*args: Any) -> dict[str, float]:
        network = args[0].classifier.model
        layer = next(m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        seen.append((type(layer).__name__, layer.training))
        return original(*args)

    monkeypatch.setattr(stochnorm.training.loop, "_gradients", spy)
    return seen


METHODS = [
    # method, class of the normalization layers, whether they take batch statistics, terms, weight decay
    ("vanilla", "BatchNorm2d", True, [], 5e-4),
    ("stochnorm", "StochNorm2d", True, [], 5e-4),
    ("bin", "BatchInstanceNorm2d", True, [], 5e-4),
    ("frozen", "FrozenNorm2d", False, [], 5e-4),
    ("l2sp", "BatchNorm2d", True, ["l2sp"], 0.0),
    ("delta", "BatchNorm2d", True, ["delta"], 0.0),
    ("bss", "BatchNorm2d", True, ["bss"], 5e-4),
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
        "config.json", "split.csv", "metrics.jsonl", "curves.png", "curves.svg", "model.safetensors",
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


def test_the_same_run_is_the_same_bytes(photos: Path, tmp_path: Path, config: Configure) -> None:
    for name in ("first", "second"):
        finetune(config(photos, tmp_path / name, steps=2), quiet=True)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second


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
    original = stochnorm.training.loop._gradients

    def spy(*args: Any) -> dict[str, float]:
        seen.append(round(next(m.p for m in args[0].classifier.model.modules() if isinstance(m, _StochNorm)), 4))
        return original(*args)

    monkeypatch.setattr(stochnorm.training.loop, "_gradients", spy)
    options = {"p": 1.0, "p_end": 0.45, "p_schedule": "linear"}
    finetune(config(photos, tmp_path / "run", **options), quiet=True)
    assert seen == [round(1 - 0.05 * step, 4) for step in range(12)]


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
    original = stochnorm.training.loop._gradients

    def spy(*args: Any) -> dict[str, float]:
        seen.append(args[0].classifier.model.state_dict()["bn1.running_mean"].clone())
        return original(*args)

    monkeypatch.setattr(stochnorm.training.loop, "_gradients", spy)
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


@pytest.mark.filterwarnings("ignore:NIH ChestX-ray14 in")  # is not the whole set
def test_findings_of_patients(tmp_path: Path, write_official: Callable[[str, Path], Path], config: Configure) -> None:
    """Several labels an image: trained by binary cross-entropy, selected by AUC, predicted by name."""
    root = write_official("chestxray14", tmp_path / "nih")
    result = finetune(config(root, tmp_path / "run", batch_size=4, balance=False), quiet=True)
    assert result.record["score"] == "mean_auc"
    assert result.record["selected"]["by"] == "validation mean AUC, then loss"
    assert result.test is not None
    assert len(result.test["per_class"]) == len(result.record["classes"])
    assert not (tmp_path / "run/confusion_matrix.csv").exists()
    prediction = predict(result.run, [next(root.rglob("*.png"))])[0]
    assert set(prediction.label.split("|")) - {""} <= set(result.record["classes"])
    wanted = [name for name, p in prediction.probabilities.items() if p >= 0.5]
    assert prediction.label == "|".join(wanted)


def test_lists_choose_the_images(photos: Path, tmp_path: Path, config: Configure) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    chosen = [f"{name}/{i:03d}.png" for name in ("blue", "green", "red") for i in range(4)]
    (lists / "train.txt").write_text("".join(f"{path} 7\n" for path in chosen))
    (lists / "val.txt").write_text("blue/005.png\nred/005.png\n")
    (lists / "test.txt").write_text("green/009.png\n")
    result = finetune(config(photos, tmp_path / "run", split_lists=str(lists)), quiet=True)
    assert result.record["images"] == {"train": 12, "val": 2, "test": 1}
    with pytest.raises(ValueError, match="remove rate 50"):
        config(photos, tmp_path / "run", split_lists=str(lists), rate=50)


def test_a_search_leaves_the_test_images_unread(photos: Path, tmp_path: Path, config: Configure) -> None:
    seen: list[int] = []
    settings = config(photos, tmp_path / "run")
    result = finetune(settings, quiet=True, test=False, validated=lambda record: seen.append(record["step"]))
    assert seen == [4, 8, 12]
    assert result.test is None
    assert result.record["images"] == {"train": 18, "val": 6, "test": 0}
    assert "test" not in (tmp_path / "run/split.csv").read_text()


def test_it_learns(photos: Path, tmp_path: Path, config: Configure) -> None:
    result = finetune(config(photos, tmp_path / "run", steps=40, eval_every=10), quiet=True)
    assert result.test is not None
    assert result.test["top1"] == 100  # red, green, blue


def test_real_photographs_from_real_weights(tmp_path: Path, config: Configure) -> None:
    pytest.importorskip("elpv_dataset")
    options = {"backbone": "tf_efficientnet_lite0", "weights": "bundled", "steps": 6, "image_size": 64, "lr": 0.001}
    source = read_source("elpv")
    manifest = tmp_path / "solar.csv"
    chosen = source.rows[::40]
    for row in chosen:
        (tmp_path / row.path).parent.mkdir(exist_ok=True)
        (tmp_path / row.path).write_bytes((source.root / row.path).read_bytes())
    manifest.write_text("path,label\n" + "".join(f"{row.path},{row.label}\n" for row in chosen))
    result = finetune(config(manifest, tmp_path / "run", **options), quiet=True)
    assert result.record["method"]["normalization"] == {"StochNormAct2d": 49}
    losses = [record["train_loss"] for record in Run(result.run).read_metrics()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", ["stochnorm", "vanilla", "stochnorm+delta+bss"])
def test_an_interrupted_run_resumes_to_the_same_bits(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, config: Configure
) -> None:
    def lasting(run: Run) -> list[dict[str, Any]]:
        timing = {"seconds", "images_per_second"}
        return [{k: v for k, v in record.items() if k not in timing} for record in run.read_metrics()]

    finetune(config(photos, tmp_path / "whole", method=method), quiet=True)
    whole = Run(tmp_path / "whole")
    for stop_after in (3, 4, 10):
        parts = Run(tmp_path / f"parts{stop_after}")
        stop_at(stop_after, config(photos, parts.path, method=method), monkeypatch)
        assert parts.checkpoint.is_file()
        resumed = finetune(config(photos, parts.path, method=method, resume=True), quiet=True)
        first, second = read_state_dict(whole.model), read_state_dict(parts.model)
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert lasting(whole) == lasting(parts)
        assert resumed.record["test"] == whole.read_result()["test"]


def test_where_images_are_kept_changes_no_bit(photos: Path, tmp_path: Path, config: Configure) -> None:
    models = []
    for number, cache in enumerate(["disk", "disk", "memory", "none"]):  # decoded and written, read, and without
        finetune(config(photos, tmp_path / str(number), steps=4, cache=cache), quiet=True)
        models.append(read_state_dict(tmp_path / str(number) / "model.safetensors"))
    for other in models[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in models[0].items())


def test_runs_of_one_data_set_share_its_decoded_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    finetune(config(photos, tmp_path / "first", steps=1), quiet=True)
    monkeypatch.setattr(Preprocessing, "read", Mock(side_effect=AssertionError("decoded")))
    finetune(config(photos, tmp_path / "second", steps=1, rate=50, data_seed=1, seed=1, report=False), quiet=True)


def test_both_methods_see_the_same_images_in_the_same_order(photos: Path, tmp_path: Path, config: Configure) -> None:
    for method in ("stochnorm", "vanilla"):
        finetune(config(photos, tmp_path / method, method=method, rate=50), quiet=True)
    assert (tmp_path / "stochnorm/split.csv").read_text() == (tmp_path / "vanilla/split.csv").read_text()


def test_a_finished_run_is_kept(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path / "run")
    first = finetune(settings, quiet=True)
    with pytest.raises(FileExistsError, match=r"holds a finished run; replace it with overwrite=True \(--overwrite\)"):
        finetune(settings, quiet=True)
    assert finetune(replace(settings, resume=True), quiet=True).record == first.record
    with pytest.raises(
        ValueError, match=r"cannot resume .*: lr was 0.02, now 0.5; seed was 0, now 1; use the settings"
    ):
        finetune(replace(settings, resume=True, lr=0.5, seed=1), quiet=True)
    (tmp_path / "run/notes.txt").write_text("mine")
    again = finetune(replace(settings, overwrite=True), quiet=True)
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
    assert again.test == first.test


def test_other_directories_are_left_alone(photos: Path, tmp_path: Path, config: Configure) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.json").write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="holds other files"):
            finetune(config(photos, tmp_path / "foreign", overwrite=overwrite), quiet=True)
    assert (tmp_path / "foreign/config.json").read_text() == "{}"
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        finetune(config(photos, tmp_path / "new", resume=True), quiet=True)


@pytest.mark.parametrize("inside", ["", "run", "red/run", "../photos/runs/deep"])
def test_a_run_does_not_lie_among_the_images(photos: Path, inside: str, config: Configure) -> None:
    with pytest.raises(
        ValueError, match=r"directory .*photos.* lies inside the images' folder .*; choose an out \(--out\) outside"
    ):
        finetune(config(photos, photos / inside), quiet=True)
    assert sorted(path.name for path in photos.iterdir()) == ["blue", "green", "red"]


def test_the_default_directory_among_the_images_is_refused_too(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    with pytest.raises(ValueError, match=r"directory runs/photos-stochnorm-\w+ lies inside the images' folder \."):
        Run.of(FinetuneConfig(".")).check(FinetuneConfig("."))


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_in_place_of_the_runs_directory_is_named(
    photos: Path, tmp_path: Path, inside: str, config: Configure
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match=r"/file is a file, not a run directory; choose another out \(--out\)"):
        finetune(config(photos, tmp_path / "file" / inside, overwrite=True), quiet=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_starts_anew_over_one_without_a_checkpoint_only(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    settings = config(photos, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(stochnorm.training.loop, "_check_finite", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finetune(settings, quiet=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "split.csv"}
    changed = replace(settings, lr=0.01)
    stop_at(3, changed, monkeypatch)
    assert json.loads((tmp_path / "run/config.json").read_text())["lr"] == 0.01
    with pytest.raises(
        FileExistsError, match=r"holds an unfinished run; resume it with resume=True \(--resume\); .*overwrite=True"
    ):
        finetune(changed, quiet=True)


def test_overwrite_removes_every_file_of_a_run_and_no_other(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path / "run", report=True)
    finetune(settings, quiet=True)
    run = Run(tmp_path / "run")
    left = set(run.path.iterdir())
    assert left | {run.checkpoint, run.failure} == {*run.files, run.path / "csv"}
    (run.path / "notes.txt").write_text("mine")
    run.open(replace(settings, overwrite=True))
    assert {path.name for path in run.path.iterdir()} == {"config.json", "notes.txt"}


def test_damaged_files_are_named_with_their_mend(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    settings = config(photos, tmp_path / "run")
    stop_at(5, settings, monkeypatch)
    run = Run(tmp_path / "run")
    again = replace(settings, resume=True)

    whole = run.checkpoint.read_bytes()
    for damage in (b"", b"junk", whole[: len(whole) // 2]):
        run.checkpoint.write_bytes(damage)
        with pytest.raises(ValueError, match=r"/checkpoint.pt cannot be read \(.+\); start again with --overwrite$"):
            finetune(again, quiet=True)
    torch.save({"model": {}}, run.checkpoint)
    with pytest.raises(ValueError, match=r"/checkpoint.pt cannot be read \(.+\); start again with --overwrite$"):
        finetune(again, quiet=True)

    for text in ("", "{", "[1]", '"method"', "{}"):
        run.config.write_text(text)
        with pytest.raises(ValueError, match=r"/config.json is damaged or not of a run; choose another out \(--out\)"):
            finetune(again, quiet=True)

    run = Run(tmp_path / "other")
    run.open(config(photos, run.path))
    run.result.write_text("{")
    with pytest.raises(
        ValueError, match=r"/result.json is damaged \(.+\); replace the run with overwrite=True \(--overwrite\)$"
    ):
        finetune(config(photos, run.path, resume=True), quiet=True)


def test_a_run_resumes_with_the_same_number_of_processes_only(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    settings = config(photos, tmp_path / "run")
    stop_at(5, settings, monkeypatch)
    checkpoint = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert checkpoint["processes"] == 1
    torch.save(checkpoint | {"processes": 3}, tmp_path / "run/checkpoint.pt")
    with pytest.raises(ValueError, match=r"cannot resume .*/run with 1 processes: .* the run had 3; use as many"):
        finetune(replace(settings, resume=True), quiet=True)


def test_the_loss_scale_of_float16_is_resumed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    """On the CPU, where Fabric offers no float16; the scale grows every 5 steps, so that it has a state."""
    fabrics: list[Fabric] = []

    def launch(device: str, precision: str, model: nn.Module | None = None) -> Fabric:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=5)
        fabrics.append(Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler)))
        return fabrics[-1]

    monkeypatch.setattr(stochnorm.training.job, "launch", launch)
    finetune(config(photos, tmp_path / "whole"), quiet=True)
    stop_at(4, config(photos, tmp_path / "parts"), monkeypatch)
    finetune(config(photos, tmp_path / "parts", resume=True), quiet=True)
    whole, first, second = (fabric._precision.state_dict() for fabric in fabrics)
    assert (whole["scale"], whole["_growth_tracker"]) == (2.0**10, 2)
    assert first["_growth_tracker"] == 4
    assert second == whole


def test_processes_wait_a_day_for_the_one_that_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Fake:
        def __init__(self, **options: Any) -> None:
            seen.update(options)

        def launch(self) -> None: ...

    monkeypatch.setattr(stochnorm.runs.hardware, "Fabric", Fake)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    stochnorm.runs.hardware.launch("cpu", "32")
    assert (seen["devices"], seen["num_nodes"]) == (2, 2)
    assert seen["strategy"]._timeout.total_seconds() == 24 * 3600


def test_float16_on_the_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="precision 16 needs a GPU; on the CPU use bf16 or 32"):
        stochnorm.runs.hardware.launch("cpu", "16")


@pytest.mark.parametrize(("select", "step", "by"), [
    ("best", 4, "validation top-1, then loss"), ("last", 12, "last iterate"),
])  # fmt: skip
def test_the_selected_model_is_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select: str, step: int, by: str, config: Configure
) -> None:
    """Validation gets worse and worse, so that the best is the first."""
    accuracies = iter((90.0, 80.0, 70.0))
    evaluate = stochnorm.training.loop.evaluate_split

    def worse(*args: Any, **options: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        logits, metrics = evaluate(*args, **options)
        return logits, metrics | {"top1": next(accuracies)}

    marked: list[int] = []
    monkeypatch.setattr(stochnorm.training.loop, "evaluate_split", worse)
    monkeypatch.setattr(stochnorm.training.loop, "_DRAW_EVERY", 0.0)
    monkeypatch.setattr(
        stochnorm.training.loop, "plot_curves", lambda history, chosen, title, path: marked.append(chosen["step"])
    )
    result = finetune(config(photos, tmp_path / "run", select=select), quiet=True)
    assert result.record["selected"] == {"step": step, "by": by}
    losses = {record["step"]: record["val_loss"] for record in Run(result.run).read_metrics()}
    assert result.validation["loss"] == pytest.approx(losses[step])
    assert len(set(losses.values())) == 3
    assert marked == ([4, 4, 4] if select == "best" else [4, 8, 12])


def test_curves_of_a_short_run_are_drawn_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(stochnorm.training.loop, "plot_curves", lambda history, *_: drawn.append(len(history)))
    finetune(config(photos, tmp_path / "run"), quiet=True)
    assert drawn == [3]


def test_the_first_of_equal_records_is_selected() -> None:
    history = [
        {"step": step, "score": "top1", "val_top1": top1, "val_loss": loss}
        for step, top1, loss in ((0, None, 0.0), (1, 50.0, 0.1), (2, 60.0, 0.5), (3, 60.0, 0.4), (4, 60.0, 0.4))
    ]
    assert selected(history, "best")["step"] == 3
    assert selected(history, "last")["step"] == 4


def test_only_the_bar_of_the_whole_training_tells_the_time_remaining() -> None:
    display = Display()
    display.console = Console(file=io.StringIO(), force_terminal=True, width=120)
    clock = 0.0
    with display.training(steps=100, per_epoch=10, start=0) as bars:
        bars.progress.get_time = lambda: clock
        for step in range(15):
            clock += 2.0
            bars.advance(step, {"loss": 1.0, "images": 1.0, "seconds": 1.0})
        epoch, steps = bars.progress.tasks
        assert epoch.time_remaining is not None  # there would be something to show
        times = [str(bars.progress.columns[-2](task)) for task in (epoch, steps)]
    assert times[0] == ""
    assert times[1] == "02:50"


@pytest.mark.usefixtures("warm_workers")
def test_the_demo_says_where_it_has_nothing_to_compare(
    photos: Path, tmp_path: Path, write_images: Callable[..., list[Path]]
) -> None:
    write_images(photos / "red", 30)
    broken = photos / "red/029.png"
    broken.write_bytes(b"")
    lines = [
        f"{path.relative_to(photos)},{path.parent.name},{'test' if path == broken else 'train'}"
        for path in photos.rglob("*.png")
    ]
    (photos / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    with (
        pytest.warns(UserWarning, match="skipped 1 of 50"),
        pytest.raises(ValueError, match=r"list.csv: no readable test image, so the methods cannot be compared"),
    ):
        stochnorm.cli.demo.demo(data=str(photos / "list.csv"), steps=1, seeds=1, rate=100, image_size=32, out=tmp_path)


def test_a_run_does_not_resume_on_other_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    stop_at(1, config(photos, tmp_path / "run", eval_every=1), monkeypatch)
    (photos / "red/000.png").unlink()
    with pytest.raises(ValueError, match=r"cannot resume .*: the images of .* are not those"):
        finetune(config(photos, tmp_path / "run", eval_every=1, resume=True), quiet=True)


def test_a_run_is_named_by_what_its_result_depends_on(photos: Path) -> None:
    base = FinetuneConfig(str(photos))
    assert Run.of(base).path == Run.of(replace(base, workers=2, resume=True, cache="none")).path
    assert Run.of(base).path != Run.of(replace(base, p=0.4)).path
    assert Run.of(base).path.parts[:1] == ("runs",)
    assert Run.of(base).path.name.startswith("photos-stochnorm-")


def test_bad_settings_and_data_leave_nothing(photos: Path, tmp_path: Path, config: Configure) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"batch_size 64 is larger than the 18 training images; give --batch-size 18"):
        finetune(config(photos, out, batch_size=64), quiet=True)
    with pytest.raises(ValueError, match="unknown backbone"):
        finetune(config(photos, out, backbone="resnot"), quiet=True)
    with pytest.raises(ValueError, match=r"test_vit has no BatchNorm layer, which stochnorm needs"):
        finetune(config(photos, out, backbone="test_vit"), quiet=True)
    for image in (photos / "red").iterdir():
        image.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="skipped 10 of 30"),
        pytest.raises(ValueError, match="no readable training image of class red"),
    ):
        finetune(config(photos, out), quiet=True)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, r"p must be in \[0, 1\], got 1.5"),
        ({"rate": 0}, r"rate must be in \(0, 100\]"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"val_fraction": 0}, "val_fraction must be in"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig("x", **options)


def test_a_diverging_loss_stops_the_run_and_keeps_what_was_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 2: training diverged with lr 1e\+30"):
        finetune(config(photos, tmp_path / "none", lr=1e30), quiet=True)
    losses = iter((1.0, 1.0, float("nan")))
    original = stochnorm.training.loop._gradients
    monkeypatch.setattr(stochnorm.training.loop, "_gradients", lambda *args: original(*args) | {"total": next(losses)})
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 3: training diverged with lr 0\.02"):
        finetune(config(photos, tmp_path / "run", eval_every=1), quiet=True)
    assert [record["step"] for record in Run(tmp_path / "run").read_metrics()] == [1, 2]
    assert (tmp_path / "run/model.safetensors").is_file()


def with_findings(photos: Path) -> Path:
    """The images as a list with several labels each and splits; "rare" is in none that trains."""
    lines = ["path,labels,split"]
    for i in range(10):
        split = "test" if i == 0 else "train" if i < 5 else "val"
        for color, labels in (("blue", "cold"), ("green", "cold|warm"), ("red", "warm")):
            lines.append(f"{color}/{i:03d}.png,{labels}{'|rare' if i > 8 else ''},{split}")
    path = photos / "findings.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("findings", [False, True], ids=["one label", "several"])
def test_a_model_of_nans_is_neither_kept_nor_a_result(
    photos: Path, tmp_path: Path, findings: bool, config: Configure
) -> None:
    data = with_findings(photos) if findings else photos
    message = (
        r"logits must be finite, those of \d+ of \d+ images are not after step 1: training diverged with lr 1e\+30"
    )
    with pytest.raises(FloatingPointError, match=message):
        finetune(config(data, tmp_path / "run", lr=1e30, steps=1), quiet=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "split.csv"}


def test_what_json_has_no_word_for_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Run(tmp_path).write_metrics([{"val_loss": float("nan")}])


def test_balance_weighs_the_positive_images_of_a_run_and_results_have_intervals(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    weights = []
    original = stochnorm.training.job.Objective

    def spy(*args: Any) -> Any:
        weights.append(args[1].pos_weight)
        return original(*args)

    monkeypatch.setattr(stochnorm.training.job, "Objective", spy)
    data = with_findings(photos)
    plain = finetune(config(data, tmp_path / "plain"), quiet=True)
    with pytest.warns(UserWarning, match=r"findings.csv: .* for rare; balance keeps the weight 1 there"):
        finetune(config(data, tmp_path / "balanced", balance=True), quiet=True)
    assert weights[0] is None
    assert weights[1].tolist() == [0.5, 1.0, 0.5]  # cold, rare, warm: of 12 images 8, 0, 8
    metrics = plain.validation  # of 15 images
    assert metrics["mean_auc_interval"][0] <= metrics["mean_auc"] <= metrics["mean_auc_interval"][1]
    assert (metrics["positives"], metrics["findings"]) == ([10, 3, 10], 3)
    assert [interval is None for interval in metrics["per_class_interval"]] == [False, True, False]
    assert plain.test is not None
    assert (plain.test["findings"], plain.test["mean_auc_interval"]) == (2, None)  # of three images


def test_without_a_test_split_only_validation_is_reported(photos: Path, tmp_path: Path, config: Configure) -> None:
    result = finetune(config(photos, tmp_path / "run", test_fraction=0), quiet=True)
    assert result.test is None
    assert result.record["images"] == {"train": 24, "val": 6, "test": 0}
    assert not (tmp_path / "run/test_predictions.csv").exists()


def test_ten_crop_tests_on_ten_crops(photos: Path, tmp_path: Path, config: Configure) -> None:
    center, ten = (
        finetune(config(photos, tmp_path / str(crops), ten_crop=crops), quiet=True).test for crops in (False, True)
    )
    assert center is not None
    assert ten is not None
    assert center["loss"] != ten["loss"]


def test_predictions_of_a_run_are_those_of_its_test(
    photos: Path, tmp_path: Path, write_images: Callable[..., list[Path]], config: Configure
) -> None:
    finetune(config(photos, tmp_path / "run", steps=40, eval_every=10), quiet=True)
    rows = {
        row["path"]: row for row in csv.DictReader((tmp_path / "run/test_predictions.csv").read_text().splitlines())
    }
    predictions = predict(tmp_path / "run", [photos / path for path in rows], device="cpu")
    for prediction in predictions:
        row = rows[prediction.path.relative_to(photos).as_posix()]
        assert row["predicted"] == prediction.label
        assert float(row["probability"]) == pytest.approx(prediction.probability, abs=2e-2)
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
    unseen = write_images(tmp_path / "new", 3, (210, 50, 50))
    unseen[1].write_bytes(b"")
    with pytest.warns(UserWarning, match=r"skipped 1 of 3 images: .*001.png"):
        assert [p.label for p in predict(tmp_path / "run", [tmp_path / "new"])] == ["red", "red"]
    with pytest.raises(ValueError, match=r"001.png: cannot be read as an image"):
        predict(tmp_path / "run", [tmp_path / "new"], strict=True)
    with pytest.raises(FileNotFoundError, match=r"nothing.png: no such image"):
        predict(tmp_path / "run", ["nothing.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"/empty: the folder has no images"):
        predict(tmp_path / "run", [tmp_path / "new", tmp_path / "empty"])
    with pytest.raises(ValueError, match=r"no images given; list image files"):
        predict(tmp_path / "run", [])
    assert load_classifier(tmp_path / "run").classes == ("blue", "green", "red")


def test_a_confusion_matrix_is_left_out_where_there_are_too_many_classes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    for most, written in ((3, True), (2, False)):
        monkeypatch.setattr("stochnorm.evaluation.evaluate._MOST_CONFUSED", most)
        result = finetune(config(photos, tmp_path / str(most)), quiet=True)
        assert len(result.record["classes"]) == 3
        assert (result.run / "confusion_matrix.csv").exists() == written


@pytest.mark.parametrize(("backbone", "precision"), [("test_resnet", "32-true"), ("test_efficientnet", "bf16-mixed")])
def test_auto_precision_looks_at_the_network_in_training_and_in_prediction(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, precision: str, config: Configure
) -> None:
    """On a CPU with bfloat16 and without AMX."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    settings = config(photos, tmp_path / "run", backbone=backbone, weights="random", device="cpu", precision="auto")
    assert finetune(settings, quiet=True).record["environment"]["precision"] == precision
    launched: list[str] = []

    def launch(*arguments: Any, **named: Any) -> Fabric:
        fabric = stochnorm.runs.hardware.launch(*arguments, **named)
        launched.append(stochnorm.runs.hardware.precision_of(fabric))
        return fabric

    monkeypatch.setattr("stochnorm.evaluation.predict.launch", launch)
    predict(tmp_path / "run", [photos / "red"], device="cpu")
    assert launched == [precision]
