"""The main job, end to end, on a tiny backbone."""

from __future__ import annotations

import io
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console

import stochnorm.cli.demo
import stochnorm.runs.hardware
import stochnorm.training.job
import stochnorm.training.loop
from stochnorm import (
    FinetuneConfig,
    finetune,
    predict,
)
from stochnorm.data import Preprocessing, read_source
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run
from stochnorm.training.display import Display
from stochnorm.training.step import TrainingStep

Configure = Callable[..., FinetuneConfig]


def test_the_same_run_is_the_same_bytes(photos: Path, tmp_path: Path, config: Configure) -> None:
    for name in ("first", "second"):
        finetune(config(photos, tmp_path / name, steps=2), quiet=True)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second


@pytest.mark.filterwarnings("ignore:.*no validation image of 1 class")
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
    options = {"backbone": "tf_efficientnet_lite0", "weights": "bundled", "steps": 6, "image_size": 64, "lr": 0.001}
    source = read_source("groceries")
    manifest = tmp_path / "fruit.csv"
    chosen = source.rows[::4]
    for row in chosen:
        (tmp_path / row.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / row.path).write_bytes((source.root / row.path).read_bytes())
    manifest.write_text("path,label\n" + "".join(f"{row.path},{row.label}\n" for row in chosen))
    result = finetune(config(manifest, tmp_path / "run", **options), quiet=True)
    assert result.record["method"]["normalization"] == {"StochNormAct2d": 49}
    losses = [record["train_loss"] for record in Run(result.run).read_metrics()]
    assert losses[-1] < losses[0]


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


def test_processes_wait_a_day_for_the_one_that_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Fake:
        def __init__(self, **options: Any) -> None:
            seen.update(options)

        def launch(self) -> None: ...

        def broadcast(self, value: str) -> str:
            return value

    monkeypatch.setattr(stochnorm.runs.hardware, "Fabric", Fake)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    stochnorm.runs.hardware.launch("cpu", "32")
    assert (seen["devices"], seen["num_nodes"]) == (2, 2)
    assert seen["strategy"]._timeout.total_seconds() == 24 * 3600


def test_float16_on_the_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="precision 16 needs a GPU; on the CPU use bf16 or 32"):
        stochnorm.runs.hardware.launch("cpu", "16")


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
    photos: Path, tmp_path: Path, write_images: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(stochnorm.cli.demo.METHODS, "auto")  # its budget is over a minute
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


def test_a_diverging_loss_stops_the_run_and_keeps_what_was_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 2: training diverged with lr 1e\+30"):
        finetune(config(photos, tmp_path / "none", lr=1e30), quiet=True)
    losses = iter((1.0, 1.0, float("nan")))
    original = TrainingStep._values

    def values(*args: Any) -> torch.Tensor:
        of_part = original(*args)
        of_part[-1] = next(losses)
        return of_part

    monkeypatch.setattr(TrainingStep, "_values", values)
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 3: training diverged with lr 0\.02"):
        finetune(config(photos, tmp_path / "run", eval_every=1), quiet=True)
    assert [record["step"] for record in Run(tmp_path / "run").read_metrics()] == [1, 2]
    assert (tmp_path / "run/model.safetensors").is_file()


def test_what_json_has_no_word_for_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Run(tmp_path).write_metrics([{"val_loss": float("nan")}])


@pytest.mark.parametrize(("backbone", "precision"), [("test_resnet", "32-true"), ("test_efficientnet", "bf16-mixed")])
def test_auto_precision_looks_at_the_network_in_training_and_in_prediction(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, precision: str, config: Configure
) -> None:
    """On a CPU with bfloat16 that multiplies slowly in it."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    times = {"dense": (3.0, 2.0), "depthwise": (2.0, 2.0)}
    monkeypatch.setattr("stochnorm.runs.precision._kept_times", times.__getitem__)
    settings = config(photos, tmp_path / "run", backbone=backbone, weights="random", device="cpu", precision="auto")
    environment = finetune(settings, quiet=True).record["environment"]
    assert environment["precision"] == precision
    kind, name = ("dense", "32") if precision == "32-true" else ("depthwise", "bf16")
    expected = {"kind": kind, "bf16_ms": times[kind][0], "fp32_ms": 2.0, "chosen": name}
    assert environment["precision_measured"] == expected
    launched: list[str] = []

    def launch(*arguments: Any, **named: Any) -> Fabric:
        fabric = stochnorm.runs.hardware.launch(*arguments, **named)
        launched.append(stochnorm.runs.hardware.precision_of(fabric))
        return fabric

    monkeypatch.setattr("stochnorm.evaluation.predict.launch", launch)
    predict(tmp_path / "run", [photos / "red"], device="cpu")
    assert launched == [precision]
