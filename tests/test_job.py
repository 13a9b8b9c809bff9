"""The main job, end to end, on a tiny backbone."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stochnorm.job
import stochnorm.train
from stochnorm import FinetuneConfig, finetune, load_classifier, predict
from stochnorm.data import read_source
from stochnorm.nn.layer import _StochNorm
from stochnorm.runs import Run
from stochnorm.weights import read_state_dict

TINY = {
    "backbone": "test_resnet",
    "weights": "random",
    "image_size": 32,
    "batch_size": 8,
    "steps": 12,
    "eval_every": 4,
    "lr": 0.02,
    "precision": "32",
    "device": "cpu",
}


def config(data: Path, out: Path, **options: Any) -> FinetuneConfig:
    return FinetuneConfig(str(data), out=str(out), **(TINY | options))


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[type, bool]]:
    """Kind and training mode of the first normalization layer, per training step."""
    seen: list[tuple[type, bool]] = []
    original = stochnorm.train._set_training_mode

    def spy(network: nn.Module, norm: str) -> None:
        original(network, norm)
        layer = next(m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        seen.append((type(layer), layer.training))

    monkeypatch.setattr(stochnorm.train, "_set_training_mode", spy)
    return seen


@pytest.mark.parametrize(("norm", "stochastic", "training"), [
    ("stochnorm", True, True), ("batchnorm", False, True), ("frozen", False, False),
])  # fmt: skip
def test_a_run_leaves_everything_and_the_method_was_active(
    photos: Path, tmp_path: Path, modes: list[tuple[type, bool]], norm: str, stochastic: bool, training: bool
) -> None:
    result = finetune(config(photos, tmp_path / "run", norm=norm, p=0.3), quiet=True)

    assert len(modes) == 12
    assert {(issubclass(kind, _StochNorm), mode) for kind, mode in modes} == {(stochastic, training)}
    assert result.record["normalization"] == {"method": norm, "p": 0.3 if stochastic else None, "layers": 15}
    run = Run(tmp_path / "run")
    assert {path.name for path in run.path.iterdir()} == {
        "config.json", "split.csv", "metrics.jsonl", "curves.png", "curves.svg", "model.safetensors",
        "test_predictions.csv", "result.json",
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


def test_frozen_statistics_stay_and_stochnorms_move(photos: Path, tmp_path: Path) -> None:
    from stochnorm import build_classifier

    start = build_classifier("test_resnet", "random", ("blue", "green", "red"), image_size=32).model.state_dict()
    for norm, moved in (("frozen", False), ("stochnorm", True)):
        finetune(config(photos, tmp_path / norm, norm=norm), quiet=True)
        end = read_state_dict(tmp_path / norm / "model.safetensors")
        assert (not torch.equal(start["bn1.running_mean"], end["bn1.running_mean"])) == moved
        assert not torch.equal(start["bn1.weight"], end["bn1.weight"])


def test_it_learns(photos: Path, tmp_path: Path) -> None:
    result = finetune(config(photos, tmp_path / "run", steps=40, eval_every=10), quiet=True)
    assert result.test is not None
    assert result.test["top1"] == 100  # red, green, blue


def test_real_photographs_from_real_weights(tmp_path: Path) -> None:
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
    assert result.record["normalization"]["layers"] == 49
    losses = [record["train_loss"] for record in Run(result.run).read_metrics()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("norm", ["stochnorm", "batchnorm"])
@pytest.mark.parametrize("stop_after", [3, 4, 10])
def test_an_interrupted_run_resumes_to_the_same_bits(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: str, stop_after: int
) -> None:
    finetune(config(photos, tmp_path / "whole", norm=norm), quiet=True)

    steps = 0

    def agreed(fabric: Any, stop: bool) -> bool:
        return steps >= stop_after

    original = stochnorm.train._finite

    def count(*args: Any) -> float:
        nonlocal steps
        steps += 1
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(stochnorm.train, "agreed", agreed)
        patch.setattr(stochnorm.train, "_finite", count)
        with pytest.raises(KeyboardInterrupt, match=r"stopped after step \d+ of 12"):
            finetune(config(photos, tmp_path / "parts", norm=norm), quiet=True)
    assert (tmp_path / "parts/checkpoint.pt").is_file()
    resumed = finetune(config(photos, tmp_path / "parts", norm=norm, resume=True), quiet=True)

    whole, parts = (read_state_dict(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    timing = {"seconds", "images_per_second"}
    first, second = (Run(tmp_path / name).read_metrics() for name in ("whole", "parts"))
    assert [{k: v for k, v in r.items() if k not in timing} for r in first] == [
        {k: v for k, v in r.items() if k not in timing} for r in second
    ]
    assert resumed.record["test"] == Run(tmp_path / "whole").read_result()["test"]


def test_both_methods_see_the_same_images_in_the_same_order(photos: Path, tmp_path: Path) -> None:
    for norm in ("stochnorm", "batchnorm"):
        finetune(config(photos, tmp_path / norm, norm=norm, rate=50), quiet=True)
    assert (tmp_path / "stochnorm/split.csv").read_text() == (tmp_path / "batchnorm/split.csv").read_text()


def test_a_finished_run_is_kept(photos: Path, tmp_path: Path) -> None:
    settings = config(photos, tmp_path / "run")
    first = finetune(settings, quiet=True)
    with pytest.raises(FileExistsError, match=r"holds a finished run; --overwrite"):
        finetune(settings, quiet=True)
    assert finetune(replace(settings, resume=True), quiet=True).record == first.record
    with pytest.raises(ValueError, match=r"cannot resume .*: lr was 0.02, now 0.5; seed was 0, now 1"):
        finetune(replace(settings, resume=True, lr=0.5, seed=1), quiet=True)
    (tmp_path / "run/notes.txt").write_text("mine")
    again = finetune(replace(settings, overwrite=True), quiet=True)
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
    assert again.test == first.test


def test_other_directories_are_left_alone(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="holds other files"):
        finetune(config(photos, photos), quiet=True)
    with pytest.raises(FileExistsError, match="holds other files"):
        finetune(config(photos, photos, overwrite=True), quiet=True)
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        finetune(config(photos, tmp_path / "new", resume=True), quiet=True)
    assert len(list(photos.iterdir())) == 3
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="holds other files"):
        finetune(config(photos, tmp_path / "foreign", overwrite=True), quiet=True)


def test_a_run_does_not_resume_on_other_images(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stochnorm.train, "agreed", lambda fabric, stop: True)
        with pytest.raises(KeyboardInterrupt, match="stopped after step 1 of 12"):
            finetune(config(photos, tmp_path / "run", eval_every=1), quiet=True)
    (photos / "red/000.png").unlink()
    with pytest.raises(ValueError, match=r"cannot resume .*: the images of .* are not those"):
        finetune(config(photos, tmp_path / "run", eval_every=1, resume=True), quiet=True)


def test_a_run_is_named_by_what_its_result_depends_on(photos: Path) -> None:
    base = FinetuneConfig(str(photos))
    assert Run.of(base).path == Run.of(replace(base, workers=2, resume=True)).path
    assert Run.of(base).path != Run.of(replace(base, p=0.4)).path
    assert Run.of(base).path.parts[:1] == ("runs",)
    assert Run.of(base).path.name.startswith("photos-stochnorm-")


def test_bad_settings_and_data_leave_nothing(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"batch_size 64 is larger than the 18 training images; give --batch-size 18"):
        finetune(config(photos, out, batch_size=64), quiet=True)
    with pytest.raises(ValueError, match="unknown backbone"):
        finetune(config(photos, out, backbone="resnot"), quiet=True)
    with pytest.raises(ValueError, match=r"test_vit has no BatchNorm layer"):
        finetune(config(photos, out, backbone="test_vit"), quiet=True)
    for image in (photos / "red").iterdir():
        image.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="left out 10 of 30"),
        pytest.raises(ValueError, match="no readable training image of class red"),
    ):
        finetune(config(photos, out), quiet=True)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, r"p must be in \[0, 1\], got 1.5"),
        ({"rate": 0}, "rate is a percentage"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"lr": 0}, "lr must be positive"),
        ({"lr": float("nan")}, "lr must be positive"),
        ({"val_fraction": 0}, "val_fraction must be in"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig("x", **options)


def test_a_diverging_loss_stops_the_run_and_keeps_what_was_written(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step \d+: training diverged with lr 1e\+30"):
        finetune(config(photos, tmp_path / "run", lr=1e30, eval_every=1), quiet=True)
    assert (tmp_path / "run/model.safetensors").is_file()


def test_without_a_test_split_only_validation_is_reported(photos: Path, tmp_path: Path) -> None:
    result = finetune(config(photos, tmp_path / "run", test_fraction=0), quiet=True)
    assert result.test is None
    assert result.record["images"] == {"train": 24, "val": 6, "test": 0}
    assert not (tmp_path / "run/test_predictions.csv").exists()


def test_ten_crop_tests_on_ten_crops(photos: Path, tmp_path: Path) -> None:
    center, ten = (
        finetune(config(photos, tmp_path / str(crops), ten_crop=crops), quiet=True).test for crops in (False, True)
    )
    assert center is not None
    assert ten is not None
    assert center["loss"] != ten["loss"]


def test_predictions_of_a_run_are_those_of_its_test(
    photos: Path, tmp_path: Path, write_images: Callable[..., list[Path]]
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
    with pytest.warns(UserWarning, match=r"left out 1 of 3 images: .*001.png"):
        assert [p.label for p in predict(tmp_path / "run", [tmp_path / "new"])] == ["red", "red"]
    with pytest.raises(ValueError, match=r"001.png: cannot be read as an image"):
        predict(tmp_path / "run", [tmp_path / "new"], strict=True)
    with pytest.raises(FileNotFoundError, match=r"nothing.png: no such image"):
        predict(tmp_path / "run", ["nothing.png"])
    assert load_classifier(tmp_path / "run").classes == ("blue", "green", "red")
