"""Method auto trains what it chose once more, on training and validation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from stochnorm import FinetuneConfig, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.nn.mixtures import between
from stochnorm.runs.directory import Run
from stochnorm.training.auto import auto, refit, search
from stochnorm.training.auto.budget import Pace
from stochnorm.training.auto.choose import Choice


@pytest.fixture
def choosing(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The choice is the one under `name`."""
    wanted: dict[str, str] = {}
    monkeypatch.setattr(search.Search, "_choice", lambda self: Choice(wanted["name"], wanted["name"], 0.0))
    return wanted


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(Run(run).model)


@pytest.fixture
def joint(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the trainings with all images were told, with the weights they ended at."""
    seen: list[dict[str, Any]] = []
    train = refit.train

    def spy(config: FinetuneConfig, **options: Any) -> Any:
        result = train(config, **options)
        seen.append(options | {"config": config, "weights": weights(result.run), "images": result.record["images"]})
        return result

    monkeypatch.setattr(refit, "train", spy)
    return seen


def test_the_model_is_of_all_images_and_its_validation_is_not(
    settings: FinetuneConfig, choosing: dict[str, str], joint: list[dict[str, Any]], tmp_path: Path
) -> None:
    choosing["name"] = "vanilla-random-0.002"
    without = finetune(replace(settings, refit=False, out=str(tmp_path / "without")), quiet=True)
    assert without.record["auto"]["refit"] is None
    assert not joint
    result = finetune(settings, quiet=True)
    (again,) = joint
    assert again["images"]["train"] == 24  # of which 6 validate
    assert again["config"].method == "vanilla"
    assert result.record["auto"]["refit"]["images"] == 24
    assert "It was then trained once more, on all 24 training and validation" in result.record["auto"]["why"]
    kept = weights(result.run)
    assert all(torch.equal(kept[key], value) for key, value in again["weights"].items())
    assert any(not torch.equal(kept[key], value) for key, value in weights(without.run).items())
    assert result.validation == without.validation  # of the model that had not seen these images
    assert not (Run(result.run).candidates / refit.REFIT).exists()


def test_weights_between_are_between_the_new_ones(
    settings: FinetuneConfig, choosing: dict[str, str], joint: list[dict[str, Any]], tmp_path: Path
) -> None:
    choosing["name"] = "probe"
    probe = finetune(replace(settings, out=str(tmp_path / "probe")), quiet=True)
    assert probe.record["probe"]["fitted_on"] == "train and validation"
    assert "It was then fitted once more, on all 24 training" in probe.record["auto"]["why"]
    assert not joint
    choosing["name"] = "frozen-random-0.002@0.5"
    result = finetune(settings, quiet=True)
    expected = between(weights(probe.run), joint[0]["weights"], 0.5)
    kept = weights(result.run)
    assert all(torch.equal(kept[key], value) for key, value in expected.items())


def test_a_start_from_the_probe_is_one_from_the_new_probe(
    settings: FinetuneConfig, choosing: dict[str, str], joint: list[dict[str, Any]]
) -> None:
    choosing["name"] = "frozen+sam-probe-0.002"
    finetune(settings, quiet=True)
    assert joint[0]["probe"].fitted_on == "train and validation"


def test_without_time_it_is_kept_as_it_is(
    settings: FinetuneConfig, choosing: dict[str, str], joint: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    choosing["name"] = "frozen-random-0.002"
    monkeypatch.setattr(search.Search, "_pace_of", lambda self, *_: Pace(1000.0, 0.1))
    result = finetune(settings, quiet=True)
    assert result.record["auto"]["refit"] is None
    assert "once more" not in result.record["auto"]["why"]
    assert not joint


def test_if_it_diverges_the_choice_is_kept(
    settings: FinetuneConfig, choosing: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    choosing["name"] = "frozen-random-0.002"
    without = finetune(replace(settings, refit=False, out=str(tmp_path / "without")), quiet=True)

    def diverging(*_: Any, **__: Any) -> None:
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(refit, "train", diverging)
    result = finetune(settings, quiet=True)
    assert result.record["auto"]["refit"] is None
    assert result.test == without.test


def test_a_stop_in_it_is_resumed(
    settings: FinetuneConfig,
    choosing: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stop_in: Callable[[ModuleType, str], None],
) -> None:
    choosing["name"] = "frozen-random-0.002@0.75"
    whole = finetune(replace(settings, out=str(tmp_path / "whole")), quiet=True)
    stop_in(auto, "conclude")
    monkeypatch.setattr(search, "train", lambda *_, **__: pytest.fail("a candidate was trained again"))
    result = finetune(replace(settings, resume=True), quiet=True)
    assert result.test == whole.test
    assert all(torch.equal(value, weights(result.run)[key]) for key, value in weights(whole.run).items())


@pytest.mark.parametrize(("settings_changed", "images"), [({}, 24), ({"refit": False}, 18), ({"test_fraction": 0}, 24)])
def test_the_page_says_on_how_many_images_the_model_was_trained(
    settings: FinetuneConfig, choosing: dict[str, str], settings_changed: dict[str, Any], images: int
) -> None:
    """Without a test split its score is that of the model that had not seen the 6 validation images."""
    choosing["name"] = "probe"
    result = finetune(replace(settings, report=True, **settings_changed), quiet=True)
    assert f"Trained on {images} images of 3 classes" in Run(result.run).report.read_text()
