"""Cross-validation: every image is tested by a model that has not seen it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import stochnorm.training.finetune as entry
from stochnorm import FinetuneConfig, Grid, Variant, evaluate, finetune, predict, tune
from stochnorm.cli.main import main
from stochnorm.data.manifest import list_manifest
from stochnorm.models import load_classifier
from stochnorm.runs.directory import Run
from stochnorm.runs.records import read_records
from stochnorm.training.train import train

Make = Callable[..., FinetuneConfig]


@pytest.fixture
def settings(config: Make, photos: Path, tmp_path: Path) -> FinetuneConfig:
    return config(photos, tmp_path / "run", folds=3, steps=4)


def rows_of(run: Path) -> list[dict[str, str]]:
    with Run(run).predictions.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_predicted_by_a_model_that_has_not_seen_it(settings: FinetuneConfig, photos: Path) -> None:
    result = finetune(settings, quiet=True)
    pooled = {row["path"]: row for row in rows_of(result.run)}
    assert sorted(pooled) == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    for number in (1, 2, 3):
        fold = Run(result.run / "folds" / str(number))
        split = {row.path: row.split for row in list_manifest(fold.split).rows}
        own = rows_of(fold.path)
        assert {row["path"] for row in own} == {path for path, name in split.items() if name == "test"}
        assert [pooled[row["path"]] for row in own] == own
        assert evaluate(fold.path).metrics["images"] == 10


def test_the_metrics_are_those_of_the_pooled_predictions(settings: FinetuneConfig) -> None:
    result = finetune(settings, quiet=True)
    rows, test = rows_of(result.run), result.test
    assert test is not None
    assert test["images"] == 30
    assert test["top1"] == pytest.approx(100 * sum(row["label"] == row["predicted"] for row in rows) / 30)
    low, high = test["top1_interval"]
    assert low < test["top1"] < high or test["top1"] in (low, high)
    parts = [Run(result.run / "folds" / str(k)).read_result()["test"] for k in (1, 2, 3)]
    assert test["loss"] == pytest.approx(sum(part["loss"] for part in parts) / 3)
    facts = result.record["folds"]
    assert [part["top1"] for part in facts["parts"]] == [part["top1"] for part in parts]
    assert facts["mean"] == pytest.approx(test["top1"])  # of folds of one size


def test_a_fold_is_an_ordinary_run_of_its_lists(settings: FinetuneConfig, config: Make, tmp_path: Path) -> None:
    result = finetune(settings, quiet=True)
    lists = str(result.run / "folds" / "lists" / "2")
    alone = finetune(replace(settings, folds=0, split_lists=lists, out=str(tmp_path / "alone")), quiet=True)
    assert rows_of(alone.run) == rows_of(result.run / "folds" / "2")


def test_the_model_for_use_is_of_all_images(settings: FinetuneConfig, photos: Path, tmp_path: Path) -> None:
    result = finetune(settings, quiet=True)
    whole = finetune(replace(settings, folds=0, test_fraction=0.0, out=str(tmp_path / "whole")), quiet=True)
    assert result.record["images"] == whole.record["images"] == {"train": 24, "val": 6, "test": 0}
    assert result.validation == whole.validation
    found, wanted = (load_classifier(one.run).model.state_dict() for one in (result, whole))
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert "trained on 24 images and validated on the other 6" in result.record["folds"]["model"]
    assert len(list(predict(result.run, [photos / "red" / "000.png"]))) == 1
    (record,) = read_records([result.run])  # the folds are parts
    assert record.settings["folds"] == 3


def test_a_stopped_run_continues_at_its_fold(
    settings: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune(settings, quiet=True)
    stopped = replace(settings, out=str(tmp_path / "stopped"))
    done: list[str] = []

    def interrupted(config: FinetuneConfig, **options: Any) -> Any:
        done.append(Path(config.out).name)
        if len(done) == 2:
            raise KeyboardInterrupt
        return train(config, **options)

    monkeypatch.setattr(entry, "train", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped; finished folds are kept in"):
        finetune(stopped, quiet=True)
    first = (tmp_path / "stopped" / "folds" / "1" / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="holds an unfinished run; resume it"):
        finetune(stopped, quiet=True)
    resumed = finetune(replace(stopped, resume=True), quiet=True)
    assert (tmp_path / "stopped" / "folds" / "1" / "model.safetensors").stat().st_mtime_ns == first
    assert rows_of(resumed.run) == rows_of(whole.run)
    assert resumed.test == whole.test
    again = finetune(replace(stopped, resume=True), quiet=True)
    assert again.record == resumed.record
    stale = tmp_path / "stopped" / "folds" / "stale"
    stale.mkdir()
    finetune(replace(stopped, overwrite=True), quiet=True)
    assert not stale.exists()


def test_other_images_cannot_be_resumed(
    settings: FinetuneConfig, photos: Path, write_images: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(config: FinetuneConfig, **options: Any) -> Any:
        if Path(config.out).name == "2":
            raise KeyboardInterrupt
        return train(config, **options)

    monkeypatch.setattr(entry, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(settings, quiet=True)
    (photos / "red" / "009.png").rename(photos / "red" / "new.png")
    with pytest.raises(
        ValueError, match=r"cannot resume .*/run/folds/1: 1 of its images have changed since it began \(red/009\.png\)"
    ):
        finetune(replace(settings, resume=True), quiet=True)


def test_the_budget_of_auto_is_that_of_the_whole_command(
    settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that takes longer leaves less to the others; each has a quarter of an equal share at least."""
    budgets: list[str] = []
    takes = {"1": 60.0, "2": 20.0, "3": 100.0, "final": 1.0}

    def one(config: FinetuneConfig, **options: Any) -> Any:
        budgets.append(config.budget)
        result = train(replace(config, method="vanilla", budget=FinetuneConfig.budget), **options)
        result.record["cost"]["seconds"] = takes[Path(config.out).name]
        return result

    monkeypatch.setattr(entry, "auto", one)
    result = finetune(replace(settings, method="auto", budget="2m"), quiet=True)
    assert budgets == ["30s", "20s", "20s", "8s"]  # 120 / 4, (120 - 60) / 3, (120 - 80) / 2, 30 / 4
    assert result.record["config"]["budget"] == "2m"
    assert result.record["cost"]["seconds"] == 181


def test_auto_chooses_in_each_fold(settings: FinetuneConfig) -> None:
    result = finetune(replace(settings, method="auto", folds=2, eval_every=4, p=0.5), quiet=True)
    kept = [part["kept"] for part in result.record["folds"]["parts"]]
    assert kept == [Run(result.run / "folds" / k).read_result()["method"]["chosen"] for k in "12"]
    assert result.record["config"]["budget"] == "8m"


def test_several_labels_and_groups(config: Make, photos: Path, tmp_path: Path) -> None:
    rows = ["path,labels,split,group"]
    for name, label in (("blue", "cold"), ("green", ""), ("red", "warm|strong")):
        rows += [f"{name}/{i:03d}.png,{label},{'test' if i < 3 else 'train'},{name} {i // 2}" for i in range(10)]
    table = photos / "findings.csv"
    table.write_text("\n".join(rows) + "\n")
    result = finetune(config(table, tmp_path / "run", method="probe", folds=2).without_unused(), quiet=True)
    assert result.test is not None
    assert result.test["images"] == 30  # the test images of the data are pooled
    assert result.test["mean_auc"] == 100
    assert result.test["positives"] == [10, 10, 10]
    for number in "12":
        split = list_manifest(Run(result.run / "folds" / number).split).rows
        assert len({(row.group, row.split) for row in split}) == 15
    assert "fitted on all 30 images" in result.record["folds"]["model"]


def test_a_sample_is_divided_too(settings: FinetuneConfig) -> None:
    result = finetune(replace(settings, method="probe", rate=50.0, batch_size=4).without_unused(), quiet=True)
    assert len(rows_of(result.run)) == 15
    assert result.record["config"]["rate"] == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds must be at least 2, or 0 for no cross-validation, got 1"),
        ({"folds": 3, "split_lists": "lists"}, "folds divides all images itself, so split_lists lists has no effect"),
        ({"folds": 3, "test_fraction": 0.5}, "folds divides all images itself, so test_fraction 0.5 has no effect"),
    ],
)
def test_settings_without_effect_are_refused(
    config: Make, photos: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        finetune(config(photos, tmp_path / "run", **options), quiet=True)


def test_folds_are_for_fine_tuning_alone(settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a comparison draws its own splits in each repetition, so folds 3 has no"):
        Grid(settings, (Variant("vanilla", {"method": "vanilla"}),))
    with pytest.raises(ValueError, match="folds 3 test every image, so test=False has no place"):
        finetune(settings, quiet=True, test=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="folds work in one process, got 2"):
        finetune(settings, quiet=True)
    pytest.importorskip("optuna")
    with pytest.raises(ValueError, match="a search reads no test images, so folds 3 has no effect"):
        tune(settings, quiet=True)


def test_terminal_and_page_have_the_estimate_of_each_fold(
    photos: Path, tmp_path: Path, tiny_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["finetune", str(photos), "--folds", "2", "--out", str(out), *tiny_options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    record = json.loads(Run(out).result.read_text())
    assert "fold 2 of 2: test" in printed
    assert record["folds"]["estimate"] in printed
    page = Run(out).report.read_text()
    assert "estimated by 2-fold cross-validation: each of 30 images of 3 classes is predicted by a model" in page
    assert record["folds"]["model"] in page
    assert all(f"<td>{part['top1']:.1f} %</td>" in page for part in record["folds"]["parts"])
