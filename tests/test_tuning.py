"""The search: on validation alone, and nothing is lost when it is stopped."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

import stochnorm.tuning
from stochnorm import FinetuneConfig, finetune, tune
from stochnorm.data.preprocessing import Preprocessing
from stochnorm.runs import Run

TINY = {
    "backbone": "test_resnet", "weights": "random", "image_size": 32, "batch_size": 8, "steps": 6, "eval_every": 2,
    "precision": "32", "device": "cpu",
}  # fmt: skip


def config(data: Path, out: Path, **options: Any) -> FinetuneConfig:
    return FinetuneConfig(str(data), out=str(out), **(TINY | options))


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "trials.csv").read_text().splitlines()))


def test_it_chooses_on_validation_and_never_reads_a_test_image(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    original = Preprocessing.read

    def spy(self: Preprocessing, path: Path) -> Any:
        read.add(path.relative_to(photos.resolve()).as_posix())
        return original(self, path)

    monkeypatch.setattr(Preprocessing, "read", spy)
    tuned = tune(config(photos, tmp_path / "search", method="stochnorm+l2sp"), trials=3, prune=False, quiet=True)
    searched = set(read)
    trials = rows(tuned.path)
    assert [row["state"] for row in trials] == ["complete"] * 3
    best = max(trials, key=lambda row: float(row["validation"]))
    assert tuned.value == pytest.approx(float(best["validation"]), abs=1e-3)
    assert (tuned.config.lr, tuned.config.l2sp.alpha) == (float(best["lr"]), float(best["l2sp.alpha"]))
    assert tuned.config.p == pytest.approx(float(best["p"]))
    assert FinetuneConfig.load(tuned.path / "chosen.json") == tuned.config

    result = finetune(replace(tuned.config, out=str(tmp_path / "run")), quiet=True)
    assert result.validation["top1"] == pytest.approx(tuned.value)
    split = {row["path"]: row["split"] for row in csv.DictReader((tmp_path / "run/split.csv").read_text().splitlines())}
    assert searched == {path for path, kind in split.items() if kind != "test"}
    assert read - searched == {path for path, kind in split.items() if kind == "test"}
    assert len(read - searched) == 6


def test_only_the_methods_of_the_sum_are_searched(photos: Path, tmp_path: Path) -> None:
    settings = config(photos, tmp_path)
    for method, names in (
        ("vanilla", {"lr"}),
        ("stochnorm", {"lr", "p"}),
        ("bss+delta", {"lr", "bss.eta", "delta.alpha"}),
        ("l2sp+frozen", {"lr", "l2sp.alpha"}),
    ):
        trial = optuna.create_study().ask()
        chosen = stochnorm.tuning.search_space(trial, replace(settings, method=method))
        assert set(trial.params) == names
        assert chosen.lr == trial.params["lr"]


def test_an_interrupted_search_goes_on_where_it_was(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(photos, tmp_path / "search", method="vanilla")
    calls: list[FinetuneConfig] = []
    original = stochnorm.tuning.finetune

    def stops_in_the_second(config: FinetuneConfig, **options: Any) -> Any:
        calls.append(config)
        if len(calls) == 2:

            def stop(record: dict[str, Any]) -> None:
                raise KeyboardInterrupt

            options["validated"] = stop
        return original(config, **options)

    monkeypatch.setattr(stochnorm.tuning, "finetune", stops_in_the_second)
    with pytest.raises(KeyboardInterrupt, match="stopped after 1 of 3 trials"):
        tune(settings, trials=3, prune=False, quiet=True)
    assert (Path(calls[1].out) / "checkpoint.pt").is_file()
    tuned = tune(settings, trials=3, prune=False, quiet=True)
    assert tuned.trials == 3
    assert [call.out for call in calls] == [calls[0].out, calls[1].out, calls[1].out, calls[3].out]
    assert (calls[2].lr, calls[2].resume) == (calls[1].lr, True)
    assert [record["step"] for record in Run(Path(calls[1].out)).read_metrics()] == [2, 4, 6]
    assert len(rows(tuned.path)) == 3
    again = tune(settings, trials=3, quiet=True)
    assert (again.config, len(calls)) == (tuned.config, 4)


def test_a_trial_of_a_killed_process_is_run_again(photos: Path, tmp_path: Path) -> None:
    settings = config(photos, tmp_path / "search", method="vanilla")
    tune(settings, trials=1, quiet=True)
    study = optuna.load_study(study_name="stochnorm", storage=f"sqlite:///{tmp_path / 'search/study.db'}")
    trial = study.ask()
    lr = trial.suggest_float("lr", 3e-4, 3e-2, log=True)
    trial.set_user_attr("process", f"{stochnorm.tuning.socket.gethostname()}:{2**22 + 1}")  # above Linux's largest
    tune(settings, trials=2, quiet=True)
    assert [float(row["lr"]) for row in rows(tmp_path / "search")][1] == lr


def test_bad_trials_are_pruned_and_diverged_ones_count(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(config: FinetuneConfig, *, validated: Any, **options: Any) -> Any:
        number = len(seen)
        seen.append(config)
        if number == 1:
            raise FloatingPointError("the loss is nan")
        for step in (2, 4, 6):
            validated({"score": "top1", "val_top1": 10.0 if number == 7 else 50.0 + number, "step": step})
        record = {"score": "top1"}
        return type("Result", (), {"validation": {"top1": 50.0 + number}, "record": record})()

    seen: list[FinetuneConfig] = []
    monkeypatch.setattr(stochnorm.tuning, "finetune", fake)
    tuned = tune(config(photos, tmp_path / "search", method="vanilla"), trials=8, quiet=True)
    states = [row["state"] for row in rows(tuned.path)]
    assert states[1] == "pruned"
    assert states[7] == "pruned"
    assert states.count("complete") == 6
    assert tuned.value == 56.0


def test_models_of_beaten_trials_are_not_kept(photos: Path, tmp_path: Path) -> None:
    tuned = tune(config(photos, tmp_path / "search", method="vanilla"), trials=3, prune=False, quiet=True)
    kept = list((tuned.path / "trials").glob("*/model.safetensors"))
    best = max(rows(tuned.path), key=lambda row: float(row["validation"]))
    assert [str(path.parent) for path in kept] == [best["run"]]
    assert len(list((tuned.path / "trials").glob("*/result.json"))) == 3


def test_another_search_in_the_same_directory_is_an_error(photos: Path, tmp_path: Path) -> None:
    settings = config(photos, tmp_path / "search", method="vanilla")
    tune(settings, trials=1, quiet=True)
    with pytest.raises(ValueError, match=r"cannot go on with the study in .*: steps was 6, now 7; give another --out"):
        tune(replace(settings, steps=7), trials=1, quiet=True)


def test_a_file_of_settings_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chosen.json"
    for text in ("{", "[1]", json.dumps({"data": "x", "learning_rate": 1})):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"chosen\.json: not a file of stochnorm's settings"):
            FinetuneConfig.load(path)
