"""Commands beside finetune, predict and demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stochnorm.cli import main

TINY = ["--backbone", "test_resnet", "--weights", "random", "--image-size", "32", "--batch-size", "8"]
TINY += ["--precision", "32", "--device", "cpu"]


def test_ls_names_every_method_and_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "methods"]) == 0
    methods = capsys.readouterr().out
    assert all(name in methods for name in ("vanilla", "stochnorm", "bin", "frozen", "l2sp", "delta", "bss", "--bss.k"))
    assert main(["ls", "datasets"]) == 0
    datasets = capsys.readouterr().out
    assert all(name in datasets for name in ("cub", "cars", "aircraft", "chestxray14", "elpv"))


def test_lists_are_written_and_used(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lists", str(photos), str(tmp_path / "lists"), "--rate", "30"]) == 0
    assert "train.txt: 6 images" in capsys.readouterr().out  # ceil(30 % of 8) = 3 a class, one of them validates
    arguments = ["finetune", str(photos), *TINY, "--steps", "1", "--batch-size", "4", "--out", str(tmp_path / "run")]
    assert main([*arguments, "--split-lists", str(tmp_path / "lists")]) == 0
    assert "6 train / 3 val / 6 test" in capsys.readouterr().out


def test_settings_of_a_file_are_defaults_that_the_command_line_overrides(photos: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["finetune", str(photos), *TINY, "--steps", "2", "--lr", "0.02", "--out", str(first)]) == 0
    arguments = ["--settings", str(first / "config.json"), "--steps", "1", "--out", str(second)]
    assert main(["finetune", str(photos), *arguments]) == 0
    settings = json.loads((second / "config.json").read_text())
    assert (settings["lr"], settings["steps"], settings["backbone"]) == (0.02, 1, "test_resnet")


def test_tune_writes_settings_that_finetune_takes(photos: Path, tmp_path: Path) -> None:
    search = tmp_path / "search"
    assert main(["tune", str(photos), *TINY, "--steps", "2", "--trials", "1", "--out", str(search)]) == 0
    chosen = str(search / "chosen.json")
    assert main(["finetune", str(photos), "--settings", chosen, "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["lr"] == json.loads(Path(chosen).read_text())["lr"]


def test_doctor_leaves_a_picture(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--weights", "random", "--image-size", "32", "--batch-size", "8", "--out", str(tmp_path / "check")]
    assert main(["doctor", "test_resnet", str(photos), *arguments]) == 0
    assert (tmp_path / "check.png").is_file()
    assert "bn1" in capsys.readouterr().out


def test_errors_of_commands_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.json").write_text("{")
    for arguments, message in (
        (["verify", str(tmp_path)], "holds the lists of no known data set"),
        (["download", "imagenet", str(tmp_path)], "imagenet"),
        (["finetune", "photos", "--settings", str(tmp_path / "bad.json")], "not a file of stochnorm's settings"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
