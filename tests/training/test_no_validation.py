"""Runs that hold no image out for validation: all images train, and the last model is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stochnorm import FinetuneConfig, finetune, tune
from stochnorm.cli.main import main
from stochnorm.data.manifest import list_manifest
from stochnorm.runs.directory import Run


def test_all_images_but_the_test_train_and_the_last_model_is_tested(
    photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(photos, tmp_path / "run", val_fraction=0.0, select="last", report=True)
    result = finetune(settings)
    run = Run(result.run)
    splits = [row.split for row in list_manifest(run.split, exact=True).rows]
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (24, 0, 6)
    assert result.validation == {}
    assert result.record["selected"] == {"step": 12, "by": "last iterate"}
    assert result.test is not None
    assert result.test["images"] == 6
    history = run.read_metrics()
    assert [record["step"] for record in history] == [4, 8, 12]
    assert {record["val_loss"] for record in history} == {record["val_top1"] for record in history} == {None}
    shown = capsys.readouterr().out
    assert "24 train / 0 val / 6 test" in shown
    assert "few" not in shown
    assert json.loads(run.result.read_text())["validation"] == {}
    assert run.report.is_file()
    assert main(["report", str(run.path), "--out", str(tmp_path / "page.html")]) == 0
    assert main(["evaluate", str(run.path)]) == 0


@pytest.mark.parametrize(
    ("settings", "chooser"),
    [
        ({}, "select best"),
        ({"select": "last", "patience": 2}, "patience 2"),
        ({"select": "last", "folds": 2}, "folds 2"),
        ({"select": "last", "method": "auto"}, "method auto"),
        ({"select": "last", "method": "probe"}, "method probe"),
        ({"select": "last", "head": "probe"}, "head probe"),
        ({"select": "last", "method": "soup", "head": "probe"}, "head probe"),
    ],
)
def test_what_chooses_by_validation_images_needs_some(settings: dict[str, Any], chooser: str) -> None:
    with pytest.raises(ValueError, match=f"val_fraction 0 leaves no image for {chooser} to choose by; give a fraction"):
        FinetuneConfig("photos", val_fraction=0.0, **{"method": "vanilla"} | settings).check_used()


def test_a_search_needs_validation_images(photos: Path) -> None:
    with pytest.raises(ValueError, match="a search chooses by validation images, so val_fraction must be above 0"):
        tune(FinetuneConfig(str(photos), method="vanilla", val_fraction=0.0, select="last"), quiet=True)
