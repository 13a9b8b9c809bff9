"""Runs, models and settings that an earlier version wrote are read and finished; see tests/fixtures/README.md."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import stochnorm
from stochnorm import BSSConfig, DELTAConfig, FinetuneConfig, L2SPConfig, finetune, load_classifier, read_records
from stochnorm.cli.main import main
from stochnorm.regularizers.attention_cache import attention_key, cached_attention
from stochnorm.runs.directory import Run
from stochnorm.runs.names import run_name
from stochnorm.runs.records import record_of

BASE = FinetuneConfig(
    "images", backbone="test_efficientnet", weights="random", image_size=32, batch_size=8, steps=6, eval_every=2,
    precision="32", device="cpu", report=False, head_lr_factor=10.0, method="stochnorm",
)  # fmt: skip
FINISHED = {
    "finished": replace(BASE, method="stochnorm+l2sp", p=0.3, l2sp=L2SPConfig(alpha=0.05), out="finished"),
    "findings": replace(BASE, data="findings.csv", method="bin", out="findings"),
    "delta": replace(BASE, method="delta", delta=DELTAConfig(attention_images=16), weights="finished", out="delta"),
}
STOPPED = replace(BASE, method="stochnorm+bss", bss=BSSConfig(k=2), p_schedule="linear", p_end=0.9, out="stopped")
CHOSEN = replace(BASE, method="stochnorm+l2sp", l2sp=L2SPConfig(beta=0.02), report=True)

pytestmark = pytest.mark.usefixtures("earlier")


def read_csv(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


@pytest.mark.parametrize(
    ("name", "score", "validation", "test", "images"),
    [
        ("finished", "top1", 33.333333, 50.0, (24, 6, 6)),
        ("delta", "top1", 33.333333, 66.666667, (24, 6, 6)),
        ("findings", "mean_auc", 85.0, 57.5, (22, 7, 7)),
    ],
)
def test_a_finished_run_is_read(
    earlier: Callable[..., Any], name: str, score: str, validation: float, test: float, images: tuple[int, ...]
) -> None:
    run, config = Run(Path(name)), FINISHED[name]
    assert run.state == "done"
    assert FinetuneConfig.load(run.config) == config
    result = run.read_result()
    assert result["selected"]["step"] == 6
    assert result["test"][score] == pytest.approx(test)
    assert [line["step"] for line in run.read_metrics()] == [2, 4, 6]

    record = record_of(run)
    assert (record.run, record.variant, record.score, record.step) == (name, config.method, score, 6)
    assert record.images == dict(zip(("train", "val", "test"), images, strict=True))
    assert record.validation[score] == pytest.approx(validation)
    assert record.value == pytest.approx(test)
    assert record.settings == json.loads(json.dumps(config.result_fields()))
    assert read_records([name]) == [record]

    before = earlier(f"{name}/*")
    assert finetune(replace(config, resume=True), quiet=True).record == result
    assert earlier(f"{name}/*") == before

    assert main(["report", name]) == 0
    assert all(label in Path(name, "report.html").read_text() for label in result["classes"])
    (row,) = read_csv(f"{name}/results.csv")
    assert (row["variant"], row["n"]) == (config.method, "1")


@pytest.mark.parametrize(
    ("name", "images", "probabilities", "metrics"),
    [
        (
            "finished", ("blue/03", "red/03"), ((0.449431, 0.392600, 0.157969), (0.437311, 0.389096, 0.173593)),
            {"loss": 1.172125, "top1": 33.333333, "per_class": [100.0, 0.0, 0.0]},
        ),
        (
            "delta", ("blue/03", "green/03"), ((0.440563, 0.372454, 0.186983), (0.397484, 0.416939, 0.185577)),
            {"loss": 1.079802, "top1": 66.666667, "per_class": [100.0, 100.0, 0.0]},
        ),
        (
            "findings", ("blue/03", "green/04"), ((0.480902, 0.487355), (0.470574, 0.480463)),
            {"loss": 0.677972, "mean_auc": 91.666667, "per_class": [100.0, 83.333333]},
        ),
    ],
)  # fmt: skip
def test_its_model_predicts_as_it_did(
    name: str, images: tuple[str, ...], probabilities: tuple[tuple[float, ...], ...], metrics: dict[str, Any]
) -> None:
    classifier = load_classifier(name)
    assert classifier.classes == (("edema", "mass") if name == "findings" else ("blue", "green", "red"))
    assert classifier.multi_label == (name == "findings")
    assert classifier.preprocessing.image_size == 32
    batch_instance = [layer for layer in classifier.model.modules() if isinstance(getattr(layer, "rho", None), Tensor)]
    assert len(batch_instance) == (13 if name == "findings" else 0)

    predictions = stochnorm.predict(name, [f"images/{image}.png" for image in images], device="cpu")
    for prediction, expected in zip(predictions, probabilities, strict=True):
        assert tuple(prediction.probabilities) == classifier.classes
        assert tuple(prediction.probabilities.values()) == pytest.approx(expected, abs=1e-5)

    evaluation = stochnorm.evaluate(name, device="cpu", precision="32")
    for key, value in metrics.items():
        assert evaluation.metrics[key] == pytest.approx(value, abs=1e-5), key
    listed = [(row["path"], row["label"]) for row in read_csv(f"{name}/test_predictions.csv")]
    assert listed == list(zip(evaluation.paths, evaluation.truth, strict=True))


def test_another_run_starts_from_its_weights_and_the_doctor_looks_at_them() -> None:
    saved = load_classifier("finished").model.state_dict()
    classifier = stochnorm.build_classifier("test_efficientnet", "finished", ("cat", "dog"))
    started = classifier.model.state_dict()
    other = {key for key in saved if not torch.equal(saved[key], started[key])}
    assert other == {"classifier.weight", "classifier.bias"}
    assert classifier.preprocessing.image_size == 32

    diagnosis = stochnorm.diagnose("finished", "images", batch_size=8, device="cpu", quiet=True)
    assert diagnosis.subject == "test_efficientnet of finished on images at 32 px"
    assert len(diagnosis.rows) == 13
    last = diagnosis.rows[-1]
    assert (last.name, last.channels) == ("bn2", 256)
    assert (last.shift, last.scale) == pytest.approx((0.195601, 9.760336), rel=1e-3)


def test_a_stopped_run_is_finished() -> None:
    run = Run(Path("stopped"))
    assert run.state == "stopped"
    assert FinetuneConfig.load(run.config) == STOPPED
    before, split = run.metrics.read_bytes(), run.split.read_bytes()
    assert [line["step"] for line in run.read_metrics()] == [2]

    steps = itertools.count()
    hook = register_optimizer_step_post_hook(lambda *_: next(steps))
    assert main(["finetune", "images", "--settings", "stopped/config.json", "--resume"]) == 0
    hook.remove()
    assert next(steps) == 3  # the checkpoint is of step 3 of 6
    assert run.state == "done"
    assert not run.checkpoint.exists()
    assert run.metrics.read_bytes().startswith(before)
    assert run.split.read_bytes() == split
    history = run.read_metrics()
    assert [line["step"] for line in history] == [2, 4, 6]
    # What 13c12f3 makes of the checkpoint. The first of these means includes step 3, whose sums the checkpoint holds.
    assert [line["train_loss"] for line in history[1:]] == pytest.approx([0.856226, 0.914027], rel=1e-3)
    assert [line["penalty_bss"] for line in history[1:]] == pytest.approx([0.068678, 0.070982], rel=1e-3)
    assert [line["val_loss"] for line in history[1:]] == pytest.approx([1.082406, 1.067888], rel=1e-3)
    tracked = [row["step"] for row in read_csv("stopped/csv/metrics.csv")]
    assert tracked == ["2", "4", "6", "2"]  # the last is the test, of the model of step 2
    assert run.read_result()["test"]["loss"] == pytest.approx(1.110992, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("images-stochnorm-1bc09fa4", {}),
        (
            "images-stochnorm+l2sp+bss-2e204660",
            {"method": "stochnorm+l2sp+bss", "l2sp": L2SPConfig(0.01, 0.02, "all"), "bss": BSSConfig(0.01, 3)},
        ),
        (
            "images-delta-9631bae2",
            {"method": "delta", "delta": DELTAConfig(0.01, 0.02, "uniform", 64, ("layer3", "layer4"))},
        ),
        (
            "images-stochnorm-4cc0f12e",
            {
                "p": 0.2, "p_end": 0.8, "p_schedule": "cosine", "norm_layers": "layer[34]", "norm_momentum": 0.01,
                "statistics": "target",
            },
        ),
        (
            "findings-frozen-76e67c0a",
            {
                "data": "findings.csv", "method": "frozen", "freeze": "both", "rate": 30, "weight_decay": 0.0,
                "balance": True,
            },
        ),
    ],
)  # fmt: skip
def test_settings_name_the_same_run(name: str, settings: dict[str, Any]) -> None:
    assert run_name(FinetuneConfig(**({"data": "images", "method": "stochnorm"} | settings))) == name


def test_a_file_of_settings_gives_the_same_run() -> None:
    chosen = FinetuneConfig.load("search/chosen.json")
    assert chosen == CHOSEN
    options = ["--settings", "search/chosen.json", "--steps", "2", "--no-report", "--out", "chosen"]
    assert main(["finetune", "images", *options]) == 0
    assert FinetuneConfig.load("chosen/config.json") == replace(chosen, steps=2, report=False, out="chosen")


def test_channel_attention_is_read_from_the_cache(earlier: Callable[..., Any]) -> None:
    folder = Path("cache/stochnorm/attention")
    before = earlier("cache/stochnorm/attention/*.safetensors")
    (key,) = (path.stem for path in before)
    weights = cached_attention(folder, key, lambda: pytest.fail("it was computed"))
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    assert shapes == {"blocks.0": (16,), "blocks.1": (24,), "blocks.2": (32,), "blocks.4.0.bn1": (192,)}
    assert weights["blocks.0"][:3].tolist() == pytest.approx([0.0512, 0.0625, 0.0710], abs=1e-4)

    result = finetune(replace(FINISHED["delta"], steps=2, out="again"), quiet=True).record
    compared = ("torch", "timm", "cpu_kernels")  # they say how a model is printed, which is part of the key
    there, now = (record["environment"] for record in (Run(Path("delta")).read_result(), result))
    if any(there[name] != now[name] for name in compared):
        pytest.skip("other versions print the model in another way, so its attention has another key")
    assert earlier("cache/stochnorm/attention/*.safetensors") == before


def test_the_key_of_channel_attention() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    nn.init.constant_(model[0].weight, 0.5)
    key = attention_key(model, [torch.arange(3), "a 1 2"], {"layers": ["1"], "measured": 2})
    assert key == "c49c555aa0a92167add6a2a32274d0201f968e936031f1d877f7311a522bcb59"


def test_lists_of_images_are_followed() -> None:
    config = replace(BASE, split_lists="lists", steps=1, batch_size=4, method="vanilla", out="listed", report=False)
    assert finetune(config, quiet=True).record["images"] == {"train": 12, "val": 3, "test": 6}
    rows = read_csv("listed/split.csv")
    for split in ("train", "val", "test"):
        listed = Path(f"lists/{split}.txt").read_text().splitlines()
        assert sorted(row["path"] for row in rows if row["split"] == split) == sorted(listed)
    assert Path("lists/val.txt").read_text().splitlines() == ["blue/07.png", "green/03.png", "red/07.png"]
