"""Method auto where something is missing: time, BatchNorm, a linear head, images, or a run that learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stochnorm import FinetuneConfig, finetune
from stochnorm.runs.directory import Run
from stochnorm.training.auto import auto, search
from stochnorm.training.auto.budget import Pace
from stochnorm.training.auto.candidates import candidates

StopIn = Callable[[ModuleType, str], None]


def fine_tuned(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in record["auto"]["tried"] if one["kind"] not in {"probe", "between"}]


def test_a_network_without_batchnorm_is_fine_tuned_plainly(settings: FinetuneConfig) -> None:
    methods = [one.settings["method"] for one in candidates(FinetuneConfig("photos"), normalized=False)]
    assert methods == ["vanilla", "vanilla", "sam", "sam"]
    tried = fine_tuned(finetune(replace(settings, backbone="test_vit", image_size=0), quiet=True).record)
    assert {one["kind"] for one in tried} == {"vanilla"}
    assert not any(one["reason"] for one in tried)


def test_other_statistics_begin_with_a_new_head(settings: FinetuneConfig) -> None:
    tried = fine_tuned(finetune(replace(settings, statistics="target"), quiet=True).record)
    assert {one["settings"]["head"] for one in tried} == {"random"}
    assert not any(one["reason"] for one in tried)


def no_probe(*_: Any, **__: Any) -> None:
    raise ValueError("the probe needs a linear head")


def test_without_a_probe_something_is_trained_whatever_the_time(
    settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "write_probe", no_probe)
    monkeypatch.setattr(search.Search, "_measured", lambda self, _: Pace(1e6, 1.0))
    monkeypatch.setattr(search.Search, "_pace_of", lambda self, *_: Pace(1e6, 1.0))
    result = finetune(settings, quiet=True)
    assert [one["steps"] for one in fine_tuned(result.record)] == [4]
    with pytest.raises(ValueError, match="the probe needs a linear head"):
        finetune(replace(settings, head="probe", out=f"{settings.out}-probe"), quiet=True)


def test_a_search_without_any_result_says_why(settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(*_: Any, **__: Any) -> None:
        raise FloatingPointError("the loss is nan at step 2: training diverged")

    monkeypatch.setattr(search, "write_probe", no_probe)
    monkeypatch.setattr(search, "train", diverging)
    with pytest.raises(FloatingPointError, match=r"nothing that was tried can be kept \(linear probe: .*give a lower"):
        finetune(settings, quiet=True)


def test_the_last_candidates_are_left_out(settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are planned; the first shows that a run takes forty seconds more than thought, so not all find time."""
    monkeypatch.setattr(search.Search, "_pace_of", lambda self, *_: Pace(0.01, 40.0))
    tried = fine_tuned(finetune(replace(settings, budget="121s"), quiet=True).record)
    late = [bool(one["reason"]) for one in sorted(tried, key=lambda one: list(names(settings)).index(one["name"]))]
    assert late == sorted(late)  # those with time first
    assert 1 < sum(not each for each in late) < len(late)


def names(settings: FinetuneConfig) -> dict[str, None]:
    return dict.fromkeys(one.name for one in candidates(settings))


def test_a_search_does_not_continue_with_other_images(settings: FinetuneConfig, photos: Path, stop_in: StopIn) -> None:
    stop_in(search, "train")
    state = json.loads(Run(Path(settings.out)).search.read_text())
    assert state["seconds"] > sum(one["seconds"] for one in state["tried"])  # the time until the stop counts
    used = [line.split(",")[0] for line in Run(Path(settings.out)).split.read_text().splitlines()[1:]]
    (photos / used[0]).unlink()
    with pytest.raises(ValueError, match=r"the images of .* are not those of its split\.csv"):
        finetune(replace(settings, resume=True), quiet=True)


def test_a_search_that_is_stopped_in_its_test_is_finished(settings: FinetuneConfig, stop_in: StopIn) -> None:
    """Its list of images has those of the test by then, which the search itself does not read."""
    stop_in(auto, "conclude")
    assert ",test" in Run(Path(settings.out)).split.read_text()
    result = finetune(replace(settings, resume=True), quiet=True)
    assert result.test is not None
    assert result.test["images"] == 6


def test_a_refitted_probe_says_so(settings: FinetuneConfig) -> None:
    result = finetune(replace(settings, budget="1s"), quiet=True)
    assert result.record["auto"]["chosen"] == "probe"
    assert result.record["probe"]["fitted_on"] == "train and validation"
    assert result.record["method"]["probe"]["images"] == 24
    run = Run(result.run)
    assert run.curves.is_file()


def test_trackers_and_files_are_those_of_the_run(settings: FinetuneConfig) -> None:
    result = finetune(replace(settings, log="csv"), quiet=True)
    assert (result.run / "csv/metrics.csv").is_file()
    inside = Run(result.run).candidates
    assert not list(inside.glob("*/csv"))
    assert not list(inside.glob("*/*.safetensors"))
    assert not (inside / "timing").exists()


def test_a_run_that_ends_early_has_the_steps_it_made(settings: FinetuneConfig) -> None:
    patient = replace(settings, steps=40, eval_every=1, patience=1, lr=1e-12)  # nothing gets better
    record = finetune(patient, quiet=True).record
    assert all(one["steps"] < 40 for one in fine_tuned(record))
    chosen = {one["name"]: one for one in record["auto"]["tried"]}[record["auto"]["chosen"].partition("@")[0]]
    assert record.get("stopped_early", 0) == chosen["steps"]
