"""The run directory: what it may hold, what is kept, and settings that leave none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stochnorm import (
    FinetuneConfig,
    finetune,
)
from stochnorm.runs.directory import Run
from stochnorm.training.step import TrainingStep

Configure = Callable[..., FinetuneConfig]

StopAt = Callable[[int, FinetuneConfig], None]


def test_a_finished_run_is_kept(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path / "run")
    first = finetune(settings, quiet=True)
    with pytest.raises(FileExistsError, match=r"holds a finished run; replace it with overwrite=True \(--overwrite\)"):
        finetune(settings, quiet=True)
    assert finetune(replace(settings, resume=True), quiet=True).record == first.record
    with pytest.raises(
        ValueError, match=r"cannot resume .*: lr was 0.02, now 0.5; seed was 0, now 1; use the settings"
    ):
        finetune(replace(settings, resume=True, lr=0.5, seed=1), quiet=True)
    (tmp_path / "run/notes.txt").write_text("mine")
    again = finetune(replace(settings, overwrite=True), quiet=True)
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
    assert again.test == first.test


def test_other_directories_are_left_alone(photos: Path, tmp_path: Path, config: Configure) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.json").write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="holds other files"):
            finetune(config(photos, tmp_path / "foreign", overwrite=overwrite), quiet=True)
    assert (tmp_path / "foreign/config.json").read_text() == "{}"
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        finetune(config(photos, tmp_path / "new", resume=True), quiet=True)


@pytest.mark.parametrize("inside", ["", "run", "red/run", "../photos/runs/deep"])
def test_a_run_does_not_lie_among_the_images(photos: Path, inside: str, config: Configure) -> None:
    with pytest.raises(
        ValueError, match=r"directory .*photos.* lies inside the images' folder .*; choose an out \(--out\) outside"
    ):
        finetune(config(photos, photos / inside), quiet=True)
    assert sorted(path.name for path in photos.iterdir()) == ["blue", "green", "red"]


def test_the_default_directory_among_the_images_is_refused_too(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    with pytest.raises(ValueError, match=r"directory runs/photos-auto-\w+ lies inside the images' folder \."):
        Run.of(FinetuneConfig(".")).check(FinetuneConfig("."))


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_in_place_of_the_runs_directory_is_named(
    photos: Path, tmp_path: Path, inside: str, config: Configure
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match=r"/file is a file, not a run directory; choose another out \(--out\)"):
        finetune(config(photos, tmp_path / "file" / inside, overwrite=True), quiet=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_starts_anew_over_one_without_a_checkpoint_only(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure, stop_at: StopAt
) -> None:
    settings = config(photos, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "compute", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finetune(settings, quiet=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "split.csv", "images.csv"}
    changed = replace(settings, lr=0.01)
    stop_at(3, changed)
    assert json.loads((tmp_path / "run/config.json").read_text())["lr"] == 0.01
    with pytest.raises(
        FileExistsError, match=r"holds an unfinished run; resume it with resume=True \(--resume\); .*overwrite=True"
    ):
        finetune(changed, quiet=True)


def test_overwrite_removes_every_file_of_a_run_and_no_other(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path / "run", report=True)
    finetune(settings, quiet=True)
    run = Run(tmp_path / "run")
    left = set(run.path.iterdir())
    absent = {run.checkpoint, run.previous_checkpoint, run.previous_model, run.failure, run.search}
    assert left | absent == {*run.files, run.path / "csv"}
    (run.path / "notes.txt").write_text("mine")
    run.open(replace(settings, overwrite=True))
    assert {path.name for path in run.path.iterdir()} == {"config.json", "notes.txt"}


def test_damaged_files_are_named_with_their_mend(
    photos: Path, tmp_path: Path, config: Configure, stop_at: StopAt
) -> None:
    settings = config(photos, tmp_path / "run")
    stop_at(5, settings)
    run = Run(tmp_path / "run")
    again = replace(settings, resume=True)

    run.previous_checkpoint.unlink()  # tests/training/test_recovery.py has it
    whole = run.checkpoint.read_bytes()
    for damage in (b"", b"junk", whole[: len(whole) // 2]):
        run.checkpoint.write_bytes(damage)
        with pytest.raises(ValueError, match=r"/checkpoint.pt cannot be read \(.+\); start again with --overwrite$"):
            finetune(again, quiet=True)
    torch.save({"model": {}}, run.checkpoint)
    with pytest.raises(ValueError, match=r"/checkpoint.pt cannot be read \(.+\); start again with --overwrite$"):
        finetune(again, quiet=True)

    for text in ("", "{", "[1]", '"method"', "{}"):
        run.config.write_text(text)
        with pytest.raises(ValueError, match=r"/config.json is damaged or not of a run; choose another out \(--out\)"):
            finetune(again, quiet=True)

    run = Run(tmp_path / "other")
    run.open(config(photos, run.path))
    run.result.write_text("{")
    with pytest.raises(
        ValueError, match=r"/result.json is damaged \(.+\); replace the run with overwrite=True \(--overwrite\)$"
    ):
        finetune(config(photos, run.path, resume=True), quiet=True)


def test_a_run_is_named_by_what_its_result_depends_on(photos: Path) -> None:
    base = FinetuneConfig(str(photos), method="stochnorm")
    assert Run.of(base).path == Run.of(replace(base, workers=2, resume=True, cache="none")).path
    assert Run.of(base).path != Run.of(replace(base, p=0.4)).path
    assert Run.of(base).path.parts[:1] == ("runs",)
    assert Run.of(base).path.name.startswith("photos-stochnorm-")


def test_bad_settings_and_data_leave_nothing(photos: Path, tmp_path: Path, config: Configure) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"batch_size 64 is larger than the 18 training images; give --batch-size 18"):
        finetune(config(photos, out, batch_size=64), quiet=True)
    with pytest.raises(ValueError, match="unknown backbone"):
        finetune(config(photos, out, backbone="resnot"), quiet=True)
    with pytest.raises(ValueError, match=r"test_vit has no BatchNorm layer, which stochnorm needs"):
        finetune(config(photos, out, backbone="test_vit"), quiet=True)
    for image in (photos / "red").iterdir():
        image.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="skipped 10 of 30"),
        pytest.raises(ValueError, match="no readable training image of class red"),
    ):
        finetune(config(photos, out), quiet=True)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, r"p must be in \[0, 1\], got 1.5"),
        ({"rate": 0}, r"rate must be in \(0, 100\]"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"val_fraction": 0.95}, "val_fraction must be in"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig("x", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "first"}, "select must be best or last, got 'first'"),
        ({"precision": "64"}, "precision must be auto or 32 or bf16 or 16, got '64'"),
        ({"steps": 1.5}, "steps must be int, got 1.5"),
        ({"p": "0.5"}, "p must be float, got '0.5'"),
    ],
)
def test_settings_of_another_type_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        FinetuneConfig("x", **options)


def test_paths_may_be_path_objects(tmp_path: Path) -> None:
    config = FinetuneConfig(tmp_path, out=tmp_path / "run")  # type: ignore[arg-type]
    assert (config.data, config.out) == (str(tmp_path), str(tmp_path / "run"))
