"""The names of trackers, the packages they need and the files they leave."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stochnorm import FinetuneConfig, finetune
from stochnorm.runs.directory import Run
from stochnorm.runs.trackers import remove_tracker, tracker_names

Configure = Callable[..., FinetuneConfig]


def test_csv_is_the_default_and_none_leaves_nothing(photos: Path, tmp_path: Path, config: Configure) -> None:
    assert FinetuneConfig("x").log == "csv"
    finetune(config(photos, tmp_path / "run", log="none"), quiet=True)
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} == set()


@pytest.mark.parametrize(
    ("log", "names"),
    [("csv", ("csv",)), ("", ()), ("none", ()), ("wandb, csv,wandb", ("wandb", "csv"))],
)
def test_names_are_parted_by_commas(log: str, names: tuple[str, ...]) -> None:
    assert tracker_names(log) == names


@pytest.mark.parametrize("log", ["tensorbord", "csv,", "csv,none"])
def test_an_unknown_tracker_is_named(log: str) -> None:
    with pytest.raises(
        ValueError, match=r"^log must be csv, tensorboard, mlflow, wandb, joined by commas, or none alone; "
    ):
        FinetuneConfig("x", log=log)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_said_before_there_is_a_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, config: Configure
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf"^--log {name} needs {name} and .*: pip install 'stochnorm\[{name}\]'$"
    ):
        finetune(config(photos, tmp_path / "run", log=f"csv,{name}"), quiet=True)
    assert not (tmp_path / "run").exists()


def test_the_trackers_do_not_name_the_run(photos: Path) -> None:
    base = FinetuneConfig(str(photos))
    assert Run.of(base).path == Run.of(replace(base, log="tensorboard")).path


def test_overwrite_removes_what_the_trackers_wrote_and_nothing_else(
    photos: Path, tmp_path: Path, config: Configure
) -> None:
    run = Run(tmp_path / "run")
    settings = config(photos, run.path, log="csv,tensorboard")
    finetune(settings, quiet=True)
    (run.path / "csv/notes.txt").write_text("mine")
    (run.path / "wandb").mkdir()
    (run.path / "wandb/mine.csv").write_text("mine")
    for left in ("wandb/offline-run-1/files", "mlflow/artifacts/1"):
        (run.path / left).mkdir(parents=True)
    for left in ("wandb/offline-run-1/files/a.json", "wandb/debug.log", "wandb/id.txt", "mlflow/mlflow.db"):
        (run.path / left).write_text("theirs")
    (run.path / "wandb/latest-run").symlink_to("offline-run-1", target_is_directory=True)
    run.open(replace(settings, overwrite=True))
    left = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    assert left == {"config.json", "csv/notes.txt", "wandb/mine.csv"}
    assert not (run.path / "tensorboard").exists()
    assert not (run.path / "mlflow").exists()


def test_a_link_of_a_trackers_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/a").write_text("mine")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/run-1").symlink_to(tmp_path / "precious", target_is_directory=True)
    remove_tracker(tmp_path, "wandb")
    assert (tmp_path / "precious/a").read_text() == "mine"
    assert not (tmp_path / "wandb").exists()
