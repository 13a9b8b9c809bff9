"""Runs of method auto."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stochnorm import FinetuneConfig, finetune, predict
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run
from stochnorm.runs.records import read_records
from stochnorm.training import job
from stochnorm.training import train as one_run
from stochnorm.training.auto import auto, probing, search
from stochnorm.training.auto.budget import Pace


def test_the_result_is_an_ordinary_run(settings: FinetuneConfig, photos: Path) -> None:
    result = finetune(settings, quiet=True)
    tried = {one["name"]: one for one in result.record["auto"]["tried"]}
    assert {one["kind"] for one in tried.values()} == {"probe", "between", "frozen", "stochnorm", "vanilla"}
    chosen = tried[result.record["auto"]["chosen"]]
    assert chosen["validation"] >= tried["probe"]["validation"]
    assert chosen["title"] in result.record["auto"]["why"]
    assert result.test is not None
    assert result.test["images"] == 6
    assert len(list(predict(result.run, [photos / "red" / "000.png"]))) == 1
    (record,) = read_records([result.run])  # not the candidates, which have no test
    assert record.variant == "auto"
    lines = Run(result.run).split.read_text().splitlines()[1:]
    assert len(lines) == 30


def test_the_default_is_auto() -> None:
    assert FinetuneConfig("photos").method == "auto"


def test_no_test_image_is_read_before_the_choice(settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    for module in (auto, one_run):
        assemble = module.assemble

        def spy(*args: Any, assemble: Callable[..., Any] = assemble, **options: Any) -> Any:
            job = assemble(*args, **options)
            read.append(job.counts["test"])
            return job

        monkeypatch.setattr(module, "assemble", spy)
    finetune(settings, quiet=True)
    assert len(read) > 6
    assert read[-1] == 6
    assert not any(read[:-1])
    read.clear()
    assert finetune(FinetuneConfig(**settings.as_fields() | {"overwrite": True}), quiet=True, test=False).test is None
    assert not any(read)


def test_a_stopped_search_continues(settings: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finetune(settings, quiet=True)
    stopped = FinetuneConfig(**settings.as_fields() | {"out": str(tmp_path / "stopped")})
    train, trained = search.train, []

    def interrupted(config: FinetuneConfig, **options: Any) -> Any:
        trained.append(Path(config.out).name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(config, **options)

    monkeypatch.setattr(search, "train", interrupted)
    with pytest.raises(KeyboardInterrupt, match="what was tried so far is kept in"):
        finetune(stopped, quiet=True)
    with pytest.raises(FileExistsError, match="holds an unfinished run; resume it"):
        finetune(stopped, quiet=True)
    resumed = finetune(FinetuneConfig(**stopped.as_fields() | {"resume": True}), quiet=True)
    assert trained[3:] == [trained[2], *trained[3:][1:]]  # the third again, not the first two
    assert not {*trained[:2]} & {*trained[3:]}
    assert resumed.record["auto"]["chosen"] == whole.record["auto"]["chosen"]
    assert resumed.test == whole.test
    states = [read_state_dict(Run(one.run).model) for one in (whole, resumed)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_run_that_diverges_is_dropped(settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    train = search.train

    def diverging(config: FinetuneConfig, **options: Any) -> Any:
        if config.method.startswith("frozen"):
            raise FloatingPointError("the loss is not finite: training diverged")
        return train(config, **options)

    monkeypatch.setattr(search, "train", diverging)
    tried = finetune(settings, quiet=True).record["auto"]["tried"]
    frozen = [one for one in tried if one["kind"] == "frozen"]
    assert {one["reason"] for one in frozen} == {"the loss is not finite"}
    assert {one["settings"]["lr"] for one in frozen} == {0.002, 0.0002}  # tried again at a tenth
    assert all(one["validation"] is None for one in frozen)


def test_overwriting_removes_the_candidates(settings: FinetuneConfig) -> None:
    finetune(settings, quiet=True)
    stale = Run(Path(settings.out)).candidates / "stale"
    stale.mkdir()
    finetune(FinetuneConfig(**settings.as_fields() | {"overwrite": True}), quiet=True)
    assert not stale.exists()


def test_several_processes_are_refused(settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="method auto works in one process, got 2"):
        finetune(settings, quiet=True)


def test_twenty_images_of_two_classes_work(
    tmp_path: Path, write_images: Callable[..., list[Path]], config: Callable[..., FinetuneConfig]
) -> None:
    for name, color in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
        write_images(tmp_path / "few" / name, 10, color)
    with pytest.warns(UserWarning, match="batch_size is 12 instead of 32: there are only 12 training images"):
        settings = config(tmp_path / "few", tmp_path / "run", method="auto", batch_size=32, steps=2)
        result = finetune(settings, quiet=True)
    assert result.record["config"]["batch_size"] == 12
    assert json.loads(Run(result.run).config.read_text())["batch_size"] == 32  # what was asked for
    assert result.record["images"] == {"train": 12, "val": 4, "test": 4}


def test_the_page_says_what_was_tried(settings: FinetuneConfig) -> None:
    result = finetune(FinetuneConfig(**settings.as_fields() | {"report": True}), quiet=True)
    page = Run(result.run).report.read_text()
    assert "What was tried" in page
    tried = result.record["auto"]["tried"]
    assert all(one["title"] in page for one in tried if one["kind"] != "between")
    assert page.count("50% of the change") >= len([one for one in tried if one["name"].endswith("@0.5")])
    assert page.count("(chosen)") == 1


def test_the_probe_is_fitted_once(settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[bool] = []
    fit = probing.fit_probe
    monkeypatch.setattr(job, "fit_probe", lambda *_, **__: pytest.fail("a candidate fitted the probe again"))
    monkeypatch.setattr(probing, "fit_probe", lambda *args, **options: [fitted.append(True), fit(*args, **options)][1])
    result = finetune(FinetuneConfig(**settings.as_fields() | {"head": "probe"}), quiet=True)
    warm = [one for one in result.record["auto"]["tried"] if one["settings"].get("head") == "probe"]
    assert len(warm) > 1
    assert len(fitted) == 2  # for all candidates, and for what was chosen with all images


def test_every_candidate_has_weights_between(settings: FinetuneConfig) -> None:
    tried = finetune(settings, quiet=True).record["auto"]["tried"]
    tuned = {one["name"] for one in tried if "steps" in one["settings"]}
    between = [one for one in tried if one["kind"] == "between"]
    assert {one["name"].split("@")[0] for one in between} == tuned
    assert {one["settings"]["share"] for one in between} == {0.25, 0.5, 0.75}
    assert len(between) == 3 * len(tuned)


def test_a_candidate_without_time_is_left_out(settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first candidate shows that a step takes a hundred times as long as planned."""
    monkeypatch.setattr(search.Search, "_pace_of", lambda self, *_: Pace(1000.0, 0.1))
    tried = finetune(settings, quiet=True).record["auto"]["tried"]
    fine_tuned = [one for one in tried if one["kind"] not in {"probe", "between"}]
    assert [one["reason"] for one in fine_tuned] == ["", *["no time left"] * (len(fine_tuned) - 1)]


def test_time_that_is_left_is_used(settings: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace is measured far too slow, so that one candidate is planned; the first one shows the true pace."""
    monkeypatch.setattr(search.Search, "_measured", lambda self, _: Pace(100.0, 1.0))
    longer = FinetuneConfig(**settings.as_fields() | {"budget": "20m"})
    tried = finetune(longer, quiet=True).record["auto"]["tried"]
    assert len([one for one in tried if "steps" in one["settings"]]) == 5  # all: one rate, so two of six are the same


def test_a_warning_of_all_candidates_is_shown_once(settings: FinetuneConfig, photos: Path) -> None:
    (photos / "red" / "000.png").write_bytes(b"damaged")
    with pytest.warns(UserWarning) as caught:
        finetune(settings, quiet=True)
    texts = [str(each.message) for each in caught if "000.png" in str(each.message)]
    assert 1 <= len(texts) <= 3  # of the first job, of all candidates, of the test
