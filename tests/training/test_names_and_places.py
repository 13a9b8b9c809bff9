"""A run is found by what people write: a path or settings by name, from any working directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stochnorm import FinetuneConfig, Result, evaluate, finetune, predict
from stochnorm.runs.directory import Run
from stochnorm.runs.names import run_name
from stochnorm.runs.paths import FROM, find_again


@pytest.fixture
def result(photos: Path, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.chdir(tmp_path)
    return finetune("photos", quiet=True, out="runs/mine", **tiny)


def test_a_run_is_used_from_anywhere_and_after_its_folder_was_moved(
    result: Result, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = evaluate(result).metrics
    assert result.test is not None
    assert here["top1"] == result.test["top1"]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert evaluate(tmp_path / "runs/mine").metrics == here
    (elsewhere / "photos").mkdir()  # another folder of that name is not taken for it
    assert evaluate(tmp_path / "runs/mine").metrics == here
    shutil.move(tmp_path / "runs", elsewhere / "moved/runs")
    shutil.move(tmp_path / "photos", elsewhere / "moved/photos")
    assert evaluate(elsewhere / "moved/runs/mine").metrics == here
    settings = elsewhere / "moved/runs/mine/config.json"
    assert json.loads(settings.read_text())[FROM] == "../.."
    assert str(tmp_path) not in settings.read_text()


def test_the_images_of_a_run_of_an_earlier_version_are_found_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (tmp_path / "photos").mkdir()
    run = tmp_path / "runs/old"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"data": "photos", "method": "vanilla"}')
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert Run(run).data() == str(tmp_path / "photos")
    assert find_again(run, "groceries") == "groceries"
    monkeypatch.chdir(tmp_path)
    assert Run(run).data() == "photos"


def test_a_folder_has_one_run_however_it_is_written() -> None:
    names = {run_name(FinetuneConfig(data)) for data in ("photos", "photos/", "./photos", "photos//")}
    assert len(names) == 1
    assert FinetuneConfig("photos/").data == "photos"


def test_a_run_that_was_started_with_a_slash_is_resumed_without(result: Result, config: Callable[..., Any]) -> None:
    settings = json.loads((result.run / "config.json").read_text())
    (result.run / "config.json").write_text(json.dumps(settings | {"data": "photos/"}))
    assert finetune(config("photos", "runs/mine", resume=True), quiet=True).record == result.record


def test_a_result_is_three_lines_and_a_path(result: Result, photos: Path) -> None:
    lines = repr(result).splitlines()
    assert len(lines) == 3
    assert lines[0] == "stochnorm on photos: 3 classes, 18 train / 6 val / 6 test images"
    assert lines[1].startswith("validation top-1 ")
    assert "95 % interval" in lines[1]
    assert lines[2] == "runs/mine"
    shown = result._repr_html_()
    assert shown.count("<div>") == 1
    assert 'src="data:image/svg+xml;base64,' in shown
    assert len(predict(result, photos / "red")) == 10


def test_settings_by_name_replace_those_of_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr("stochnorm.training.finetune.train", lambda config, **_: made.append(config))
    finetune(Path("photos/"), method="vanilla", steps=7)
    finetune(FinetuneConfig("photos", method="vanilla", lr=0.1), steps=8)
    assert [(c.data, c.method, c.steps, c.lr) for c in made] == [
        ("photos", "vanilla", 7, 0.003),
        ("photos", "vanilla", 8, 0.1),
    ]


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ("photos", {"learning_rate": 0.1}, "unknown setting learning_rate, did you mean lr?"),
        ("photos", {"epochs": 3}, "unknown setting epochs; training is counted in steps: an epoch is images / batch"),
        ([1, 2], {}, "the images must be a path: .*; got list; write the images into such a folder"),
    ],
)
def test_what_cannot_be_is_said_with_what_to_do(data: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        finetune(data, **settings)
