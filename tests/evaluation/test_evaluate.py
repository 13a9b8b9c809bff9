"""A run's model on its test images, and on other labelled images."""

from __future__ import annotations

import csv
import io
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from stochnorm import Evaluation, FinetuneConfig, Result, evaluate, finetune
from stochnorm.cli.main import main
from stochnorm.data.manifest import list_manifest
from stochnorm.runs.directory import Run

Configure = Callable[..., FinetuneConfig]
LIKE_THE_RUN: dict[str, Any] = {"batch_size": 8, "precision": "32", "device": "cpu"}


@pytest.fixture
def run(photos: Path, tmp_path: Path, config: Configure) -> Run:
    """A run on 30 photographs in 3 classes: 18 for training, 6 for validation, 6 for the test."""
    return Run(finetune(config(photos, tmp_path / "run"), quiet=True).run)


def assert_the_same(evaluation: Evaluation, result: Result) -> None:
    """Assert that an evaluation has the result of the run, except for rounding."""
    assert result.test is not None
    assert evaluation.metrics.keys() == result.test.keys()
    for name, value in evaluation.metrics.items():
        assert value == (pytest.approx(result.test[name], rel=1e-5) if isinstance(value, float) else result.test[name])
    columns, *ours = csv.reader(evaluation.predictions_csv().splitlines())
    their_columns, *theirs = csv.reader(Run(result.run).predictions.read_text().splitlines())
    assert columns == their_columns
    for row, their_row in zip(ours, theirs, strict=True):
        assert row[:3] == their_row[:3]
        assert [float(p) for p in row[3:]] == pytest.approx([float(p) for p in their_row[3:]], abs=1e-5)


@pytest.mark.parametrize("ten_crop", [False, True])
def test_the_runs_own_test_images_give_its_result(
    photos: Path, tmp_path: Path, ten_crop: bool, config: Configure
) -> None:
    result = finetune(config(photos, tmp_path / "run", ten_crop=ten_crop), quiet=True)
    again = evaluate(result.run, ten_crop=ten_crop, **LIKE_THE_RUN)
    assert_the_same(again, result)
    assert again.confusion_csv() == Run(result.run).confusion.read_text()
    assert again.split == "test"


def test_findings_give_the_result_too(photos: Path, tmp_path: Path, config: Configure) -> None:
    lines = ["path,labels,split"]
    for i in range(10):
        split = ("train", "val", "test")[min(i // 3, 2)]
        lines += [f"{color}/{i:03d}.png,{labels},{split}" for color, labels in (("blue", "cold"), ("red", "warm|red"))]
    (photos / "list.csv").write_text("\n".join(lines))
    result = finetune(config(photos / "list.csv", tmp_path / "run", batch_size=6), quiet=True)
    again = evaluate(result.run, **LIKE_THE_RUN | {"batch_size": 6})
    assert_the_same(again, result)
    assert again.confusion_csv() == ""
    with pytest.raises(
        ValueError,
        match="photos: images have one label, but the model was trained on images with any number of labels; use ",
    ):
        evaluate(result.run, str(photos), **LIKE_THE_RUN)


def test_new_images_may_be_of_some_classes(run: Run, tmp_path: Path, write_images: Callable[..., list[Path]]) -> None:
    new = tmp_path / "new"
    write_images(new / "red", 4, (190, 50, 40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(run.path, str(new), **LIKE_THE_RUN)
    assert (found.split, found.classes, found.truth) == ("all", ("blue", "green", "red"), ["red"] * 4)
    right = found.predicted.count("red")
    assert found.metrics["per_class"] == [None, None, 25.0 * right]
    assert found.metrics["mean_per_class"] == found.metrics["top1"] == 25.0 * right
    assert found.metrics == evaluate(run.model, str(new), **LIKE_THE_RUN).metrics


def test_images_to_test_on_are_taken_where_the_data_say_which(run: Run, photos: Path) -> None:
    lines = [f"{color}/00{i}.png,{color},{s}" for color in ("blue", "red") for i, s in enumerate(("train", "test"))]
    (photos / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    sizes = {
        split: evaluate(run.model, str(photos / "list.csv"), split=split, **LIKE_THE_RUN).paths
        for split in ("auto", "train", "all")
    }
    assert sizes["auto"] == ["blue/001.png", "red/001.png"]
    assert sizes["train"] == ["blue/000.png", "red/000.png"]
    assert sorted(sizes["all"]) == sorted(sizes["auto"] + sizes["train"])
    with pytest.raises(ValueError, match=r"list.csv: none of 4 images is in split val; choose another, or all"):
        evaluate(run.model, str(photos / "list.csv"), split="val", **LIKE_THE_RUN)
    with pytest.raises(ValueError, match="split must be auto, train, val, test or all, got 'half'"):
        evaluate(run.model, str(photos / "list.csv"), split="half", **LIKE_THE_RUN)
    with pytest.raises(
        ValueError, match="split val needs DATA, got none; leave split out to use the run's test images"
    ):
        evaluate(run.path, split="val", **LIKE_THE_RUN)


def test_images_that_the_run_knows_are_found_under_other_names(run: Run, photos: Path, tmp_path: Path) -> None:
    rows = [line.split(",") for line in run.split.read_text().splitlines()[1:]]
    for number, (path, label, split) in enumerate(rows):
        if split == "test" or path.endswith("red/000.png") or number % 9 == 0:
            target = tmp_path / "copied" / label / f"another-name-{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / path, target)
    copied = len(list((tmp_path / "copied").rglob("*.png")))
    known = copied - 6
    assert known >= 2
    with pytest.warns(
        UserWarning, match=f"copied: {known} of {copied} images were used for training or selection; scores are too"
    ):
        evaluate(run.path, str(tmp_path / "copied"), **LIKE_THE_RUN)
    with pytest.warns(UserWarning, match="photos: 24 of 30 images were used for training or selection"):
        evaluate(run.path, str(photos), **LIKE_THE_RUN)
    photos.rename(tmp_path / "moved")
    with pytest.warns(UserWarning, match="cannot check whether images of .*moved were used .*no such folder"):
        evaluate(run.path, str(tmp_path / "moved"), **LIKE_THE_RUN)


def test_other_images_of_the_same_names_are_not_the_runs(run: Run, photos: Path, tmp_path: Path) -> None:
    names = [row.path for row in list_manifest(run.split, exact=True).rows if row.split == "test"]
    shutil.copytree(photos, tmp_path / "copy")
    shutil.rmtree(photos)
    (tmp_path / "copy").rename(photos)  # the same bytes, with other times and inodes
    assert evaluate(run.path).split == "test"
    Image.new("RGB", (40, 40)).save(photos / names[0])
    with pytest.raises(
        ValueError, match=rf"1 of the run's {len(names)} test images have changed since: {names[0]}; re"
    ):
        evaluate(run.path)
    for number, path in enumerate(photos.rglob("*.png")):
        Image.new("RGB", (40, 40), (9, 9, number)).save(path)
    with pytest.warns(UserWarning, match="cannot check whether images of .* .the run's own have changed since: "):
        evaluate(run.path, str(photos))
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"the images of .* are not there, as seen from .*; give DATA"):
        evaluate(run.path)


def test_data_that_cannot_be_evaluated_are_errors(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "red").rename(tmp_path / "crimson")
    with pytest.raises(FileNotFoundError, match=r"photos: 2 of the run's 6 test images no longer exist: red/"):
        evaluate(run.path, **LIKE_THE_RUN)
    (tmp_path / "crimson").rename(photos / "crimson")
    with pytest.raises(ValueError, match="photos: unknown classes crimson; the model has blue, green, red: use"):
        evaluate(run.path, str(photos), **LIKE_THE_RUN)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        evaluate(run.path, batch_size=0)
    with pytest.raises(
        ValueError, match="not a run directory, so there are no test images; give labelled images as DATA"
    ):
        evaluate(run.model, **LIKE_THE_RUN)
    settings = replace(FinetuneConfig.load(run.config), test_fraction=0.0, out=str(tmp_path / "untested"))
    untested = finetune(settings, quiet=True).run
    with pytest.raises(ValueError, match="untested: the run has no test images; give new labelled images as DATA"):
        evaluate(untested, **LIKE_THE_RUN)


def test_a_broken_image_is_skipped_or_with_strict_an_error(
    run: Run, tmp_path: Path, write_images: Callable[..., list[Path]]
) -> None:
    paths = write_images(tmp_path / "new/red", 3, (190, 50, 40))
    paths[1].write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped 1 of 3 images: .*red/001.png"):
        assert evaluate(run.path, str(tmp_path / "new"), **LIKE_THE_RUN).paths == ["red/000.png", "red/002.png"]
    with pytest.raises(ValueError, match=r"red/001.png: cannot be read as an image"):
        evaluate(run.path, str(tmp_path / "new"), strict=True, **LIKE_THE_RUN)
    with pytest.raises(ValueError, match="precision 16 needs a GPU"):
        evaluate(run.path, str(tmp_path / "new"), **LIKE_THE_RUN | {"precision": "16"})


def test_the_worst_classes_come_with_those_they_are_confused_with() -> None:
    truth = ["a"] * 4 + ["b"] * 2 + ["[c]"]
    predicted = ["b", "[c]", "[c]", "a", "b", "b", "a"]
    metrics = {
        "images": 7, "top1": 42.9, "top1_interval": [15.8, 75.0], "mean_per_class": 41.7, "ece": 1.0, "loss": 1.0,
        "per_class": [25.0, 100.0, 0.0, None], "per_class_precision": [50.0, 66.7, 0.0, None],
        "per_class_f1": [33.3, 80.0, 0.0, None],
    }  # fmt: skip
    found = Evaluation(
        "all", metrics, ("a", "b", "[c]", "d"), [""] * 7, truth, predicted, torch.zeros(7, 4), multi_label=False
    )
    console = Console(file=io.StringIO(), width=80)
    found.show(console)
    lines = [line.split() for line in console.file.getvalue().splitlines()[-4:]]  # type: ignore[attr-defined]
    assert [line for line in lines if line] == [
        ["[c]", "1", "0.0", "0.0", "0.0", "a", "(1)"], ["a", "4", "25.0", "50.0", "33.3", "[c]", "(2)"],
        ["b", "2", "100.0", "66.7", "80.0", "-"],
    ]  # fmt: skip


def test_the_command_shows_and_writes_what_the_function_returns(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--csv", str(tmp_path / "out.csv"), "--json", str(tmp_path / "out.json")]
    assert main(["evaluate", str(run.path), *files, "--batch-size", "8", "--precision", "32"]) == 0
    shown = capsys.readouterr().out
    expected = evaluate(run.path, **LIKE_THE_RUN)
    assert (tmp_path / "out.csv").read_text() == expected.predictions_csv()
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "run": str(run.path), "data": "", "ten_crop": False, "flip": False, "split": "test",
        "classes": ["blue", "green", "red"], **json.loads(json.dumps(expected.metrics))
    }  # fmt: skip
    assert f"{expected.metrics['top1']:.1f}" in shown
    lines = [line.split() for line in shown.splitlines() if line.split()[:1] in (["blue"], ["green"], ["red"])]
    assert [line[1] for line in lines] == ["2", "2", "2"]
    assert [float(line[2]) for line in lines] == sorted(float(f"{x:.1f}") for x in expected.metrics["per_class"])
