"""A greedy soup of several trainings in one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stochnorm.training.kept.several
from stochnorm import FinetuneConfig, SoupConfig, evaluate, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.nn.mixtures import mean
from stochnorm.runs.directory import Run

Configure = Callable[..., FinetuneConfig]


@pytest.fixture
def settings(weights: str) -> dict[str, Any]:
    return {"head": "probe", "weights": weights, "lr": 0.002, "steps": 8}


def model_of(path: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(path / "model.safetensors")


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, torch.Tensor]]]:
    """The weights that soups were made of."""
    seen: list[Any] = []
    original = stochnorm.training.kept.several.keep

    def spy(job: Any, start: Any, ends: Any) -> Any:
        seen.append(ends)
        return original(job, start, ends)

    monkeypatch.setattr(stochnorm.training.kept.several, "keep", spy)
    return seen


def test_a_soup_is_the_mean_of_the_runs_that_help(
    photos: Path, tmp_path: Path, config: Configure, settings: dict[str, Any], ends: list[Any]
) -> None:
    """Its first training is the run without a soup, bit for bit; the others have other seeds."""
    finetune(config(photos, tmp_path / "plain", method="stochnorm", **settings), quiet=True)
    given = config(photos, tmp_path / "soup", method="stochnorm+soup", soup=SoupConfig(3), report=True, **settings)
    told: list[int] = []
    result = finetune(given, quiet=True, validated=lambda record: told.append(record["step"]))
    assert told == [4, 8]
    facts, plain = result.record["method"]["soup"], model_of(tmp_path / "plain")
    (found,) = ends
    assert len(found) == len(facts["runs"]) == 3
    assert all(torch.equal(found[0][key], plain[key]) for key in plain)
    assert not any(torch.equal(found[0]["fc.weight"], other["fc.weight"]) for other in found[1:])
    expected, model = mean([found[member] for member in facts["members"]]), model_of(tmp_path / "soup")
    assert all(torch.equal(model[key], expected[key]) for key in model)
    assert facts["validation"] >= max(facts["runs"])
    assert result.validation["top1"] == pytest.approx(facts["validation"])
    seeds = [Run(path).read_result()["config"]["seed"] for path in (tmp_path / "soup/candidates").glob("seed-*")]
    assert given.seed in seeds
    assert len(set(seeds)) == 3
    run = Run(tmp_path / "soup")
    assert evaluate(run.path).metrics["top1"] == pytest.approx(result.test["top1"])  # type: ignore[index]
    assert "stochnorm+soup" in run.report.read_text()
    assert [record["step"] for record in run.read_metrics()] == [4, 8]
    parts = [Run(path).read_result()["cost"]["seconds"] for path in run.candidates.glob("seed-*")]
    assert result.record["cost"]["seconds"] == pytest.approx(sum(parts))
    assert not any((path / "model.safetensors").exists() for path in run.candidates.glob("seed-*"))


def test_no_test_image_is_scored_before_the_soup_is_made(
    photos: Path, tmp_path: Path, config: Configure, settings: dict[str, Any]
) -> None:
    result = finetune(config(photos, tmp_path / "run", method="frozen+soup", **settings), quiet=True)
    parts = [Run(path) for path in (tmp_path / "run/candidates").glob("seed-*")]
    assert all(part.read_result()["test"] is None for part in parts)
    assert all("test" not in part.split.read_text() for part in parts)
    assert result.test is not None


def test_a_soup_that_was_stopped_is_the_same_in_the_end(
    photos: Path, tmp_path: Path, config: Configure, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second training; the first is not done again."""
    given = settings | {"method": "stochnorm+soup", "soup": SoupConfig(2)}
    finetune(config(photos, tmp_path / "whole", **given), quiet=True)
    done: list[int] = []
    original = stochnorm.training.kept.several.train

    def train(part: FinetuneConfig, **options: Any) -> Any:
        def stop(record: dict[str, Any]) -> None:
            done.append(part.seed)
            if len(done) == 3:  # two validations a training
                raise KeyboardInterrupt("stopped after step 4 of 8")

        return original(part, **options | {"validated": stop})

    monkeypatch.setattr(stochnorm.training.kept.several, "train", train)
    with pytest.raises(KeyboardInterrupt, match="what was trained so far is kept in"):
        finetune(config(photos, tmp_path / "parts", **given), quiet=True)
    with pytest.raises(FileExistsError, match=r"an unfinished run; resume it with resume=True \(--resume\)"):
        finetune(config(photos, tmp_path / "parts", **given), quiet=True)
    resumed = finetune(config(photos, tmp_path / "parts", resume=True, **given), quiet=True)
    assert done.count(config(photos).seed) == 2
    whole, parts = model_of(tmp_path / "whole"), model_of(tmp_path / "parts")
    assert all(torch.equal(parts[key], whole[key]) for key in whole)
    assert resumed.record["method"] == Run(tmp_path / "whole").read_result()["method"]


def test_a_uniform_soup_takes_all_runs(
    photos: Path, tmp_path: Path, config: Configure, settings: dict[str, Any], ends: list[Any]
) -> None:
    given = {"method": "stochnorm+soup", "soup": SoupConfig(2, "uniform")} | settings
    result = finetune(config(photos, tmp_path / "run", **given), quiet=True)
    assert result.record["method"]["soup"]["members"] == [0, 1]
    expected, model = mean(ends[0]), model_of(tmp_path / "run")
    assert all(torch.equal(model[key], expected[key]) for key in model)


def test_several_processes_are_refused_in_a_line(
    photos: Path, tmp_path: Path, config: Configure, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"method soup trains several times, in one process, got 2; start it without"):
        finetune(config(photos, tmp_path / "run", method="soup", **settings), quiet=True)
