"""The report of a run: selection, metrics, predictions."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stochnorm.cli.demo
import stochnorm.runs.hardware
import stochnorm.training.job
import stochnorm.training.loop
import stochnorm.training.writer
from stochnorm import (
    FinetuneConfig,
    finetune,
    load_classifier,
    predict,
)
from stochnorm.runs.directory import Run
from stochnorm.training.selection import selected

Configure = Callable[..., FinetuneConfig]


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


@pytest.mark.filterwarnings("ignore:NIH ChestX-ray14 in")  # is not the whole set
@pytest.mark.filterwarnings("ignore:.*byte for byte")
def test_findings_of_patients(tmp_path: Path, write_official: Callable[[str, Path], Path], config: Configure) -> None:
    """Several labels an image: trained by binary cross-entropy, selected by AUC, predicted by name."""
    root = write_official("chestxray14", tmp_path / "nih")
    result = finetune(config(root, tmp_path / "run", batch_size=4, balance=False), quiet=True)
    assert result.record["score"] == "mean_auc"
    assert result.record["selected"]["by"] == "validation mean AUC, then loss"
    assert result.test is not None
    assert len(result.test["per_class"]) == len(result.record["classes"])
    assert not (tmp_path / "run/confusion_matrix.csv").exists()
    image = next(root.rglob("*.png"))
    (prediction,) = predict(result.run, [image])
    assert predict(result.run, str(image)) == [prediction]  # one path is one image
    assert set(prediction.label.split("|")) - {""} <= set(result.record["classes"])
    wanted = [name for name, p in prediction.probabilities.items() if p >= 0.5]
    assert prediction.label == "|".join(wanted)


@pytest.mark.parametrize("findings", [False, True], ids=["one label", "several"])
def test_a_model_of_nans_is_neither_kept_nor_a_result(
    photos: Path, tmp_path: Path, findings: bool, config: Configure
) -> None:
    data = with_findings(photos) if findings else photos
    message = (
        r"logits must be finite, but those of \d+ of \d+ images are not after step 1: training diverged with lr 1e\+30"
    )
    with pytest.raises(FloatingPointError, match=message):
        finetune(config(data, tmp_path / "run", lr=1e30, steps=1), quiet=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "images.csv", "split.csv"}


def test_balance_weighs_the_positive_images_of_a_run_and_results_have_intervals(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    weights = []
    original = stochnorm.training.job.Objective

    def spy(*args: Any, **options: Any) -> Any:
        weights.append(args[1].pos_weight)
        return original(*args, **options)

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


def test_balance_weighs_the_classes_of_a_run_and_says_where_only_the_largest_is_answered(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = []
    original = stochnorm.training.job.Objective

    def spy(*args: Any, **options: Any) -> Any:
        weights.append(args[1].class_weights)
        return original(*args, **options)

    monkeypatch.setattr(stochnorm.training.job, "Objective", spy)
    for path in [*(photos / "green").iterdir(), *sorted((photos / "red").iterdir())[5:]]:
        path.unlink()
    (photos / "green").rmdir()
    plain = finetune(config(photos, tmp_path / "plain", lr=1e-9))
    finetune(config(photos, tmp_path / "balanced", balance=True, lr=1e-3), quiet=True)
    assert weights[0] is None
    train = plain.record["images"]["train"]
    few = sum(",red,train" in line for line in (tmp_path / "plain/split.csv").read_text().splitlines())
    assert weights[1].tolist() == [pytest.approx(train / (2 * (train - few))), pytest.approx(train / (2 * few))]
    assert plain.test is not None
    assert plain.test["majority"] == pytest.approx(200 / 3)
    assert ("always answering with the largest class" in capsys.readouterr().out) == (plain.test["top1"] < 67)


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
        monkeypatch.setattr("stochnorm.evaluation.result._MOST_CONFUSED", most)
        result = finetune(config(photos, tmp_path / str(most)), quiet=True)
        assert len(result.record["classes"]) == 3
        assert (result.run / "confusion_matrix.csv").exists() == written


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
    monkeypatch.setattr(stochnorm.training.writer, "_DRAW_EVERY", 0.0)
    monkeypatch.setattr(
        stochnorm.training.writer, "plot_curves", lambda history, chosen, title, path: marked.append(chosen["step"])
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
    monkeypatch.setattr(stochnorm.training.writer, "plot_curves", lambda history, *_: drawn.append(len(history)))
    finetune(config(photos, tmp_path / "run"), quiet=True)
    assert drawn == [3]


def test_the_first_of_equal_records_is_selected() -> None:
    history = [
        {"step": step, "score": "top1", "val_top1": top1, "val_loss": loss}
        for step, top1, loss in ((0, None, 0.0), (1, 50.0, 0.1), (2, 60.0, 0.5), (3, 60.0, 0.4), (4, 60.0, 0.4))
    ]
    assert selected(history, "best")["step"] == 3
    assert selected(history, "last")["step"] == 4
