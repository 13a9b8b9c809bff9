"""The search: on validation alone, and nothing is lost when it is stopped."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import stochnorm.tuning.tune
from stochnorm import BSSConfig, DELTAConfig, FinetuneConfig, L2SPConfig, finetune, tune
from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.runs.directory import Run
from stochnorm.tuning.study import put_back

optuna = pytest.importorskip("optuna")  # not where the tests run with carried wheels

Configure = Callable[..., FinetuneConfig]


@pytest.fixture
def tiny(tiny: dict[str, Any]) -> dict[str, Any]:
    return tiny | {"steps": 6, "eval_every": 2}


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "trials.csv").read_text().splitlines()))


def instant(monkeypatch: pytest.MonkeyPatch, scores: list[float], losses: list[float] | None = None) -> list[Any]:
    """Trials that end at once with these, and no pictures of them; returns the list of their settings, which fills."""
    seen: list[FinetuneConfig] = []

    def fake(config: FinetuneConfig, **options: Any) -> Any:
        validation = {"top1": scores[len(seen)], "loss": losses[len(seen)] if losses else 1.0, "images": 6}
        seen.append(config)
        return type("Result", (), {"validation": validation, "record": {"score": "top1"}})()

    monkeypatch.setattr(stochnorm.tuning.tune, "finetune", fake)
    monkeypatch.setattr("stochnorm.tuning.plot.plot_search", lambda *_: None)
    return seen


def test_it_chooses_on_validation_and_never_reads_a_test_image(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
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
    best = next(row for row in trials if tuned.config.lr == pytest.approx(float(row["lr"]), abs=1e-12))
    assert float(best["validation"]) == max(float(row["validation"]) for row in trials)
    assert tuned.value == pytest.approx(float(best["validation"]), abs=1e-3)
    assert tuned.config.lr == pytest.approx(float(best["lr"]), abs=1e-12)
    assert tuned.config.l2sp.alpha == pytest.approx(float(best["l2sp.alpha"]), abs=1e-12)
    assert tuned.config.p == pytest.approx(float(best["p"]))
    assert FinetuneConfig.load(tuned.path / "chosen.json") == tuned.config

    result = finetune(replace(tuned.config, out=str(tmp_path / "run")), quiet=True)
    assert result.validation["top1"] == pytest.approx(tuned.value)
    split = {row["path"]: row["split"] for row in csv.DictReader((tmp_path / "run/split.csv").read_text().splitlines())}
    assert searched == {path for path, kind in split.items() if kind != "test"}
    assert read - searched == {path for path, kind in split.items() if kind == "test"}
    assert len(read - searched) == 6


def test_only_the_methods_of_the_sum_are_searched(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path)
    for method, names in (
        ("vanilla", {"lr"}),
        ("stochnorm", {"lr", "p"}),
        ("bss+delta", {"lr", "bss.eta", "delta.alpha"}),
        ("l2sp+frozen", {"lr", "l2sp.alpha"}),
    ):
        trial = optuna.create_study().ask()
        chosen = stochnorm.tuning.tune.search_space(trial, replace(settings, method=method))
        assert set(trial.params) == names
        assert chosen.lr == trial.params["lr"]


def test_an_interrupted_search_goes_on_where_it_was(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    settings = config(photos, tmp_path / "search", method="vanilla")
    calls: list[FinetuneConfig] = []
    original = stochnorm.tuning.tune.finetune

    def stops_in_the_second(config: FinetuneConfig, **options: Any) -> Any:
        calls.append(config)
        if len(calls) == 2:

            def stop(record: dict[str, Any]) -> None:
                raise KeyboardInterrupt

            options["validated"] = stop
        return original(config, **options)

    monkeypatch.setattr(stochnorm.tuning.tune, "finetune", stops_in_the_second)
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


def test_a_trial_of_a_killed_process_is_run_again(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path / "search", method="vanilla")
    tune(settings, trials=1, quiet=True)
    study = optuna.load_study(study_name="stochnorm", storage=f"sqlite:///{tmp_path / 'search/study.db'}")
    trial = study.ask()
    lr = trial.suggest_float("lr", 3e-4, 3e-2, log=True)
    trial.set_user_attr("process", f"{socket.gethostname()}:{os.getpid()}")  # taken by another since
    tune(settings, trials=2, quiet=True)
    assert float(rows(tmp_path / "search")[1]["lr"]) == pytest.approx(lr, abs=1e-12)


def test_bad_trials_are_pruned_and_diverged_ones_count(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    def fake(config: FinetuneConfig, *, validated: Any, **options: Any) -> Any:
        number = len(seen)
        seen.append(config)
        if number == 1:
            raise FloatingPointError("the loss is nan")
        for step in (2, 4, 6):
            validated({"score": "top1", "val_top1": 10.0 if number == 7 else 50.0 + number, "step": step})
        record = {"score": "top1"}
        return type("Result", (), {"validation": {"top1": 50.0 + number, "loss": 1.0, "images": 6}, "record": record})()

    seen: list[FinetuneConfig] = []
    monkeypatch.setattr(stochnorm.tuning.tune, "finetune", fake)
    tuned = tune(config(photos, tmp_path / "search", method="vanilla"), trials=8, quiet=True)
    states = [row["state"] for row in rows(tuned.path)]
    assert states[1] == "pruned"
    assert states[7] == "pruned"
    assert states.count("complete") == 6
    assert tuned.value == 56.0


def test_models_of_beaten_trials_are_not_kept(photos: Path, tmp_path: Path, config: Configure) -> None:
    tuned = tune(config(photos, tmp_path / "search", method="vanilla"), trials=3, prune=False, quiet=True)
    kept = list((tuned.path / "trials").glob("*/model.safetensors"))
    best = next(row for row in rows(tuned.path) if tuned.config.lr == pytest.approx(float(row["lr"]), abs=1e-12))
    assert [path.parent for path in kept] == [tuned.path / best["run"]]
    assert not list((tuned.path / "trials").glob("*/checkpoint.pt"))
    assert len(list((tuned.path / "trials").glob("*/result.json"))) == 3


def test_another_search_in_the_same_directory_is_an_error(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path / "search", method="vanilla")
    tune(settings, trials=1, quiet=True)
    for changed, message in (({"steps": 7}, "steps was 6, now 7"), ({"bss": BSSConfig(k=2)}, "bss.k was 1, now 2")):
        with pytest.raises(ValueError, match=rf"cannot resume the study in \S+: {message}; choose another out"):
            tune(replace(settings, **changed), trials=1, quiet=True)


def test_a_search_goes_on_from_another_start_of_whatever_is_searched(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    seen = instant(monkeypatch, scores=[9.0, 2.0, 3.0, 4.0, 5.0])
    settings = config(photos, tmp_path / "search", method="stochnorm+l2sp+bss", p=0.25, lr=0.1)
    tune(settings, trials=1, quiet=True)
    for trials, changed in enumerate(({"lr": 0.01}, {"p": 0.3}, {"l2sp": L2SPConfig(0.2)}, {"bss": BSSConfig(0.2)}), 2):
        settings = replace(settings, **changed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tuned = tune(settings, trials=trials, quiet=True)
        assert stochnorm.tuning.tune.searched(seen[-1]) == stochnorm.tuning.tune.searched(settings)
        assert (tuned.config.lr, tuned.config.p) == (0.1, 0.25), "the first trial's, outside of the ranges by now"


def test_settings_may_change_before_a_trial_began(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path / "search", method="vanilla")
    with pytest.raises(ValueError, match="batch_size 99 is larger than the 18 training images"):
        tune(replace(settings, batch_size=99), trials=1, quiet=True)
    assert tune(settings, trials=1, quiet=True).trials == 1


def test_of_equal_scores_the_lower_loss_is_chosen(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    results = instant(monkeypatch, scores=[50.0, 60.0, 60.0, 60.0], losses=[0.1, 0.9, 0.3, 0.5])
    tuned = tune(config(photos, tmp_path / "search", method="vanilla"), trials=4, quiet=True)
    assert (tuned.value, tuned.config.lr) == (60.0, results[2].lr)


def test_trials_log_nothing_and_the_choice_keeps_its_trackers(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    seen = instant(monkeypatch, scores=[50.0, 60.0])
    tuned = tune(config(photos, tmp_path / "search", method="vanilla", log="csv,tensorboard"), trials=2, quiet=True)
    assert [settings.log for settings in seen] == ["none", "none"]
    assert tuned.config.log == "csv,tensorboard"


def test_a_seed_gives_one_search_and_trials_differ(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    drawn = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        seen = instant(monkeypatch, scores=[float(n) for n in range(13)])
        tune(config(photos, tmp_path / name, seed=seed), trials=13, quiet=True)  # TPE draws at random ten times
        drawn[name] = [(trial.lr, trial.p) for trial in seen]
    assert drawn["a"] == drawn["b"]
    assert {trials.pop(0) for trials in drawn.values()} == {(0.003, 0.5)}, "the first is as given"
    assert not set(drawn["a"]) & set(drawn["c"])
    assert len(set(drawn["a"])) == 12


def test_processes_that_start_together_draw_apart(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    """The second process asks while the first one's first trial runs."""
    settings = config(photos, tmp_path / "search", method="vanilla")
    seen: list[FinetuneConfig] = []

    def nested(config: FinetuneConfig, **options: Any) -> Any:
        seen.append(config)
        if len(seen) == 1:
            tune(settings, trials=1, quiet=True)
        validation = {"top1": 50.0, "loss": 1.0, "images": 6}
        return type("Result", (), {"validation": validation, "record": {"score": "top1"}})()

    monkeypatch.setattr(stochnorm.tuning.tune, "finetune", nested)
    tune(settings, trials=1, quiet=True)
    assert len({trial.lr for trial in seen}) == len({trial.out for trial in seen}) == len(seen) == 2


def test_of_two_processes_one_takes_a_killed_trial(photos: Path, tmp_path: Path, config: Configure) -> None:
    tune(config(photos, tmp_path / "search", method="vanilla"), trials=1, quiet=True)
    study = optuna.load_study(study_name="stochnorm", storage=f"sqlite:///{tmp_path / 'search/study.db'}")
    trial = study.ask()
    put_back(study, trial)
    put_back(study, trial)
    assert [t.state.name for t in study.get_trials()] == ["COMPLETE", "FAIL", "WAITING"]


def test_published_values_lie_in_the_ranges(tmp_path: Path, config: Configure) -> None:
    trial = optuna.create_study().ask()
    stochnorm.tuning.tune.search_space(trial, config(tmp_path, tmp_path, method="stochnorm+l2sp+delta+bss"))
    published = {"lr": (1e-3, 1e-2), "p": (0.5,), "l2sp.alpha": (0.01, 0.1), "delta.alpha": (0.01,), "bss.eta": (1e-3,)}
    assert set(trial.distributions) == set(published)
    for name, values in published.items():
        assert all(trial.distributions[name]._contains(value) for value in values), name


def test_searches_share_a_storage_by_the_names_of_their_directories(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    instant(monkeypatch, scores=[1.0, 2.0])
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    for name in ("first", "second"):
        settings = config(photos, tmp_path / name, method="vanilla", steps=len(name))
        assert tune(settings, trials=1, storage=url, quiet=True).trials == 1
    assert sorted(optuna.get_all_study_names(url)) == ["first", "second"]


def test_two_searches_of_one_name_do_not_become_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    instant(monkeypatch, scores=[1.0, 2.0])
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    settings = config(photos, tmp_path / "a/search", method="vanilla")
    tune(settings, trials=1, storage=url, quiet=True)
    message = rf"'search' in the storage belongs to the search in {tmp_path}/a/search, not in {tmp_path}/b/search"
    message += "; choose an out"
    with pytest.raises(ValueError, match=message):
        tune(replace(settings, out=str(tmp_path / "b/search")), trials=2, storage=url, quiet=True)
    assert not (tmp_path / "b/search").exists()
    (tmp_path / "a").rename(tmp_path / "c")  # or as another machine sees it
    assert tune(replace(settings, out=str(tmp_path / "c/search")), trials=2, storage=url, quiet=True).trials == 2


def test_processes_that_start_together_make_one_search(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    """Threads, some of which look what the directory holds while another one makes it."""
    seen = instant(monkeypatch, scores=[1.0] * 9)
    original = Run.check
    delays = iter((0.0, 1.0, 1.0))

    def slow(self: Run, config: FinetuneConfig) -> None:
        time.sleep(next(delays))
        original(self, config)

    monkeypatch.setattr(Run, "check", slow)
    settings = config(photos, tmp_path / "search", method="vanilla")
    with ThreadPoolExecutor() as pool:
        started = [pool.submit(tune, settings, trials=3, quiet=True) for _ in range(3)]
        assert all(search.result().trials >= 3 for search in started)
    assert [trial.lr for trial in seen].count(settings.lr) == 1


@pytest.mark.parametrize("given", [
    {"p": 0.25}, {"p": 1.0}, {"p": 0.0}, {"lr": 0.1}, {"lr": 1e-5}, {"bss": BSSConfig(eta=1.0)},
    {"l2sp": L2SPConfig(alpha=10.0)}, {"delta": DELTAConfig(alpha=0.1)},
])  # fmt: skip
def test_the_first_trial_has_the_settings_as_they_are_given(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], config: Configure
) -> None:
    seen = instant(monkeypatch, scores=[2.0, 1.0])
    settings = config(photos, tmp_path / "search", method="stochnorm+l2sp+delta+bss", report=True, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned = tune(settings, trials=2, quiet=True)
    assert replace(seen[0], out="", report=True, log="csv", resume=False) == replace(settings, out="") == tuned.config


def test_p_goes_in_tenths_where_the_given_one_does(tmp_path: Path, config: Configure) -> None:
    for given, tenths in ((0.3, True), (1.0, True), (0.25, False)):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        settings = config(tmp_path, tmp_path, p=given)
        drawn = [stochnorm.tuning.tune.search_space(study.ask(), settings).p for _ in range(20)]
        assert all(p == round(p, 1) for p in drawn) == tenths


def test_a_strength_of_nothing_is_no_start_of_a_search(photos: Path, tmp_path: Path, config: Configure) -> None:
    with pytest.raises(
        ValueError, match=r"bss\.eta must be positive, since its search is on a logarithmic scale, got 0"
    ):
        tune(config(photos, tmp_path / "search", method="bss", bss=BSSConfig(eta=0)), quiet=True)
    assert not (tmp_path / "search").exists()


def test_a_space_may_have_choices(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], config: Configure
) -> None:
    def space(trial: optuna.Trial, config: FinetuneConfig) -> FinetuneConfig:
        freeze = trial.suggest_categorical("freeze", ["statistics", "both"])
        return replace(config, freeze=freeze, batch_size=trial.suggest_int("batch_size", 4, 8))

    tuned = tune(config(photos, tmp_path / "search", method="frozen", steps=1), trials=2, space=space)
    assert {row["freeze"] for row in rows(tuned.path)} <= {"statistics", "both"}
    assert f"freeze {tuned.config.freeze}, batch_size {tuned.config.batch_size}" in capsys.readouterr().out


def test_a_model_of_nans_is_not_chosen(photos: Path, tmp_path: Path, config: Configure) -> None:
    with pytest.raises(FloatingPointError, match="none of 1 trials has a result"):
        tune(config(photos, tmp_path / "search", method="vanilla", lr=1e30, steps=1), trials=1, quiet=True)


def test_it_says_once_what_all_trials_share(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (photos / "red/000.png").write_bytes(b"")
    with pytest.warns(UserWarning) as caught:
        warnings.simplefilter("always")
        tuned = tune(config(photos, tmp_path / "search"), trials=2, prune=False)
    assert len([w for w in caught if "skipped 1 of" in str(w.message)]) == 1
    text = capsys.readouterr().out
    assert text.count("18 train / 6 val, 3 classes, rate 100 %; 6 test images not used") == 1
    settings = f"lr {tuned.config.lr:.3g}, p {tuned.config.p:.3g}"
    assert re.search(rf"^chosen by [\d.]+ on [56] validation images: trial [01], {settings}$", text, re.M)
    assert f"next: stochnorm finetune {photos} --settings {tuned.path / 'chosen.json'}\n" in text


def test_what_is_wrong_is_said_before_anything_is_made(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    for settings, trials, error, message in (
        (config(photos, photos / "search"), 1, ValueError, "lies inside the images' folder"),
        (config(tmp_path / "nowhere", tmp_path / "search"), 1, FileNotFoundError, "nowhere: no such folder"),
        (config(photos, photos.parent), 1, FileExistsError, "holds other files"),
        (config(photos, tmp_path / "search"), 0, ValueError, "trials must be at least 1, got 0"),
    ):
        with pytest.raises(error, match=message):
            tune(settings, trials=trials, quiet=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start tune without torchrun"):
        tune(config(photos, tmp_path / "search"), quiet=True)
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}
    assert {path.name for path in photos.iterdir()} == {"blue", "green", "red"}


def test_a_damaged_study_is_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    instant(monkeypatch, scores=[1.0])
    settings = config(photos, tmp_path / "search", method="vanilla")
    tune(settings, trials=1, quiet=True)
    (tmp_path / "search/study.db").write_bytes(b"no database" * 500)
    with pytest.raises(
        ValueError, match=r"study\.db: the study cannot be opened \(.*not a database.*\); remove it; fin"
    ):
        tune(settings, trials=1, quiet=True)


def test_without_its_study_a_search_repeats_no_finished_trial(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    settings = config(photos, tmp_path / "search", method="vanilla")
    tuned = tune(settings, trials=3, prune=False, quiet=True)
    (tmp_path / "search/study.db").unlink()
    monkeypatch.setattr("stochnorm.training.train.fit", lambda *_: pytest.fail("trained"))
    assert tune(settings, trials=3, prune=False, quiet=True) == tuned


def test_a_search_without_a_result_says_so(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    def diverges(config: FinetuneConfig, **options: Any) -> Any:
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(stochnorm.tuning.tune, "finetune", diverges)
    with pytest.raises(FloatingPointError, match="none of 2 trials has a result"):
        tune(config(photos, tmp_path / "search", method="vanilla"), trials=2, quiet=True)
    assert [row["state"] for row in rows(tmp_path / "search")] == ["pruned", "pruned"]


def test_a_file_of_settings_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chosen.json"
    for text in ("{", "[1]", json.dumps({"data": "x", "learning_rate": 1})):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"chosen\.json: not a file of stochnorm's settings"):
            FinetuneConfig.load(path)


@pytest.mark.parametrize(("settings", "message"), [
    ({"lr": "0.1"}, "lr must be float, got '0.1'"),
    ({"steps": 1.5}, "steps must be int, got 1.5"),
    ({"steps": True}, "steps must be int, got True"),
    ({"method": 3}, "method must be str, got 3"),
    ({"report": 1}, "report must be bool, got 1"),
    ({"freeze": "all"}, r"freeze must be statistics or affine or both, got 'all'"),
    ({"weight_decay": "no"}, r"weight_decay must be float or None, got 'no'"),
    ({"l2sp": {"alpha": []}}, r"l2sp.alpha must be float, got \[\]"),
    ({"delta": {"layers": "layer1"}}, r"delta.layers must be tuple\[str, ...\], got 'layer1'"),
    ({"bss": 1}, "bss must be BSSConfig, got 1"),
    ({"p": 2}, r"p must be in \[0, 1\], got 2"),
])  # fmt: skip
def test_a_wrong_value_in_a_file_of_settings_is_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = tmp_path / "chosen.json"
    path.write_text(json.dumps({"data": "x", **settings}))
    with pytest.raises(ValueError, match=rf"chosen\.json: .*{message}"):
        FinetuneConfig.load(path)


def test_a_file_of_all_settings_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for settings in (FinetuneConfig("x"), FinetuneConfig("x", lr=1, weight_decay=0, delta=DELTAConfig(layers=("a",)))):
        path.write_text(json.dumps(asdict(settings)))
        assert FinetuneConfig.load(path) == settings
