"""Trackers get what a run's own files say, each step once, and never stop a run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric.loggers import CSVLogger

from stochnorm import FinetuneConfig, finetune
from stochnorm.runs.directory import Run
from stochnorm.runs.trackers import TRACKERS, _Tracker

Configure = Callable[..., FinetuneConfig]
NOLOAD = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # MLflow uses it


@pytest.fixture
def tiny(tiny: dict[str, Any]) -> dict[str, Any]:
    return tiny | {"method": "stochnorm+l2sp", "lr": 0.02}


def stop_after(step: int) -> Callable[[dict[str, Any]], None]:
    """Ends a run when this validation is over, as a kill would."""

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == step:
            raise KeyboardInterrupt

    return stop


def expected(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Return the expected content of a tracker: steps and values by name."""
    history, result = run.read_metrics(), run.read_result()
    names = {
        "train/loss": "train_loss", "train/top1": "train_top1", "val/loss": "val_loss", "val/top1": "val_top1",
        "val/mean_per_class": "val_mean_per_class", "penalty/l2sp": "penalty_l2sp", "lr": "lr", "epoch": "epoch",
        "images_per_second": "images_per_second", "seconds": "seconds",
    }  # fmt: skip
    values = {name: [(record["step"], record[key]) for record in history] for name, key in names.items()}
    reported = ("loss", "top1", "mean_per_class", "macro_f1", "macro_precision", "majority", "ece", "images")
    tested = {name: result["test"][name] for name in reported}
    return values | {f"test/{name}": [(result["selected"]["step"], value)] for name, value in tested.items()}


def of_csv(run: Path) -> dict[str, list[tuple[int, float]]]:
    rows = list(csv.DictReader((run / "csv/metrics.csv").read_text().splitlines()))
    names = [name for name in rows[0] if name != "step"]
    return {name: [(int(row["step"]), float(row[name])) for row in rows if row[name]] for name in names}


def of_tensorboard(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def of_mlflow(uri: str) -> tuple[dict[str, list[tuple[int, float]]], dict[str, str], str]:
    """Metrics, settings and state of the only run of a store."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "stochnorm")
    (run,) = client.search_runs([experiment.experiment_id])
    names = run.data.metrics
    points = {
        name: sorted((p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)) for name in names
    }
    return points, run.data.params, run.info.status


def assert_same(found: dict[str, list[tuple[int, float]]], wanted: dict[str, list[tuple[int, float]]]) -> None:
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6), name


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for package in TRACKERS["mlflow"].needs:
        pytest.importorskip(package)


def test_the_trackers_hold_what_the_run_says(photos: Path, tmp_path: Path, config: Configure) -> None:
    run = Run(finetune(config(photos, tmp_path / "run", log="csv,tensorboard"), quiet=True).run)
    wanted = expected(run)
    assert len(wanted["val/top1"]) == 3
    assert of_csv(run.path) == wanted  # digit by digit
    assert_same(of_tensorboard(run.path), wanted)


def test_tensorboard_gets_the_settings(photos: Path, tmp_path: Path, config: Configure) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    finetune(config(photos, tmp_path / "run", log="tensorboard"), quiet=True)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["method"].string_value == "stochnorm+l2sp"
    assert settings["l2sp.alpha"].number_value == 0.1
    assert settings["lr"].number_value == 0.02


@pytest.mark.parametrize("step", [4, 8])
def test_a_resumed_run_has_each_step_once(photos: Path, tmp_path: Path, step: int, config: Configure) -> None:
    settings = config(photos, tmp_path / "run", log="csv,tensorboard")
    with pytest.raises(KeyboardInterrupt):
        finetune(settings, quiet=True, validated=stop_after(step))
    assert [s for s, _ in of_csv(tmp_path / "run")["lr"]] == [s for s in (4, 8) if s <= step]
    finetune(replace(settings, resume=True), quiet=True)
    assert of_csv(tmp_path / "run") == expected(Run(tmp_path / "run"))
    assert_same(of_tensorboard(tmp_path / "run"), expected(Run(tmp_path / "run")))


def test_a_tracker_that_joins_later_gets_the_whole_run(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path / "run", log="none")
    with pytest.raises(KeyboardInterrupt):
        finetune(settings, quiet=True, validated=stop_after(8))
    finetune(replace(settings, resume=True, log="csv"), quiet=True)
    assert of_csv(tmp_path / "run") == expected(Run(tmp_path / "run"))


def test_a_run_kept_elsewhere_is_gone_on_with_by_its_id(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    """A server of the test's: each run a list of steps. A kill comes between the checkpoint of step 8 and its log."""
    server: dict[str, list[int]] = {}

    class Remote(_Tracker):
        needs = ()
        leaves = ("id.txt",)

        def __init__(self, folder: Path, settings: dict[str, Any], id: str | None) -> None:
            self.id = id or f"run-{len(server)}"
            self.logged = tuple(server.setdefault(self.id, []))

        def log(self, metrics: dict[str, float], step: int) -> None:
            if step == 8 and "train/loss" in metrics and not self.logged:
                raise KeyboardInterrupt
            server[str(self.id)].append(step)

        def close(self, status: str) -> None: ...

    monkeypatch.setitem(TRACKERS, "wandb", Remote)
    settings = config(photos, tmp_path / "run", log="wandb")
    with pytest.raises(KeyboardInterrupt):
        finetune(settings, quiet=True)
    assert server == {"run-0": [4]}
    result = finetune(replace(settings, resume=True), quiet=True)
    assert server == {"run-0": [4, 8, 12, result.record["selected"]["step"]]}
    with pytest.raises(KeyboardInterrupt):
        finetune(replace(settings, overwrite=True), quiet=True)
    assert server["run-1"] == [4]


def test_a_tracker_that_fails_is_dropped_and_the_run_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    whole = finetune(config(photos, tmp_path / "whole", log="none"), quiet=True)
    original = CSVLogger.log_metrics

    def fail(self: CSVLogger, metrics: dict[str, Any], step: int | None = None) -> None:
        if step == 8:
            raise OSError("the disk is full\nand more")
        original(self, metrics, step)

    monkeypatch.setattr(CSVLogger, "log_metrics", fail)
    with pytest.warns(UserWarning) as seen:
        result = finetune(config(photos, tmp_path / "run", log="csv,tensorboard"), quiet=True)
    assert [str(w.message) for w in seen] == ["--log csv failed (the disk is full); the run continues without it"]
    assert result.test == whole.test
    assert [step for step, _ in of_csv(result.run)["lr"]] == [4]
    assert_same(of_tensorboard(result.run), expected(Run(result.run)))


def test_a_tracker_that_does_not_open_is_dropped_too(photos: Path, tmp_path: Path, config: Configure) -> None:
    (tmp_path / "run").mkdir()
    settings = config(photos, tmp_path / "run", log="csv,tensorboard", steps=4)
    Run(tmp_path / "run").config.write_text(json.dumps({"method": "stochnorm"}))
    (tmp_path / "run/tensorboard").write_text("in its place")
    with pytest.warns(UserWarning, match=r"^--log tensorboard failed \(.+\); the run continues without it$"):
        finetune(settings, quiet=True)
    assert (tmp_path / "run/tensorboard").read_text() == "in its place"
    assert [step for step, _ in of_csv(tmp_path / "run")["lr"]] == [4]


@pytest.mark.usefixtures("mlflow")
@NOLOAD
def test_mlflow_holds_what_the_run_says(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = config(photos, tmp_path / "run", log="mlflow")
    with pytest.raises(KeyboardInterrupt):
        finetune(settings, quiet=True, validated=stop_after(8))
    finetune(replace(settings, resume=True), quiet=True)
    found, params, status = of_mlflow(f"sqlite:///{tmp_path}/run/mlflow/mlflow.db")
    assert_same(found, expected(Run(tmp_path / "run")))
    assert (params["method"], params["l2sp.alpha"], params["lr"]) == ("stochnorm+l2sp", "0.1", "0.02")
    assert status == "FINISHED"
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"photos", "run"}


@pytest.mark.usefixtures("mlflow")
@NOLOAD
def test_mlflow_elsewhere_goes_on_with_its_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    """A step that was validated and not logged, as in a kill between the two, is logged by the resumed run."""
    uri = f"sqlite:///{tmp_path}/server.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    settings = config(photos, tmp_path / "run", log="mlflow")
    original = TRACKERS["mlflow"].log

    def killed(self: Any, metrics: dict[str, float], step: int) -> None:
        if step == 8:
            raise KeyboardInterrupt
        original(self, metrics, step)

    with monkeypatch.context() as patch:
        patch.setattr(TRACKERS["mlflow"], "log", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(settings, quiet=True)
    assert of_mlflow(uri)[2] == "FAILED"
    finetune(replace(settings, resume=True), quiet=True)
    found, _, status = of_mlflow(uri)
    assert_same(found, expected(Run(tmp_path / "run")))
    assert status == "FINISHED"


def test_wandb_offline_holds_what_the_run_says(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    pytest.importorskip("pytorch_lightning")
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    runs: dict[str, dict[str, list[tuple[int, float]]]] = {}
    original = wandb.Run.log

    def spy(self: Any, data: dict[str, float], *args: Any, **options: Any) -> None:
        points = runs.setdefault(self.id, {})
        for name in data.keys() - {"trainer/global_step"}:
            points.setdefault(name, []).append((int(data["trainer/global_step"]), data[name]))
        original(self, data, *args, **options)

    monkeypatch.setattr(wandb.Run, "log", spy)
    settings = config(photos, tmp_path / "run", log="wandb")
    with pytest.raises(KeyboardInterrupt):
        finetune(settings, quiet=True, validated=stop_after(8))
    finetune(replace(settings, resume=True), quiet=True)
    first, second = runs.items()
    assert [step for step, _ in first[1]["lr"]] == [4, 8]
    assert_same(second[1], expected(Run(tmp_path / "run")))
    (left,) = (tmp_path / "run/wandb").glob("offline-run-*")  # that of the interrupted run is replaced
    assert left.name.endswith(second[0])
    assert wandb.run is None
