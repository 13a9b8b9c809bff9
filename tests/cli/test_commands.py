"""Commands beside finetune, predict and demo."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stochnorm.cli.main import main


def test_ls_names_every_method_and_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "methods"]) == 0
    methods = capsys.readouterr().out
    assert all(name in methods for name in ("vanilla", "stochnorm", "bin", "frozen", "l2sp", "delta", "bss", "--bss.k"))
    assert main(["ls", "datasets"]) == 0
    datasets = capsys.readouterr().out
    assert all(name in datasets for name in ("cub", "cars", "aircraft", "chestxray14", "elpv", "groceries"))


def test_lists_are_written_and_used(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_options: list[str]
) -> None:
    assert main(["lists", str(photos), str(tmp_path / "lists"), "--rate", "30"]) == 0
    assert "train.txt: 6 images" in capsys.readouterr().out  # ceil(30 % of 8) = 3 a class, one of them validates
    arguments = [
        "finetune",
        str(photos),
        *tiny_options,
        "--steps",
        "1",
        "--batch-size",
        "4",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*arguments, "--split-lists", str(tmp_path / "lists")]) == 0
    assert "6 train / 3 val / 6 test" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*is not the official set")  # half its classes
def test_lists_of_cub_hold_the_sampling_rules_counts(shared: Path, tmp_path: Path) -> None:
    """15 % is ceil(0.15 n) of each class; of those, training and validation together."""
    from stochnorm.data import read_source

    data = shared / "data/CUB_100"
    rows = read_source(data).rows
    assert main(["lists", str(data), str(tmp_path / "lists"), "--rate", "15"]) == 0
    listed = {name: (tmp_path / f"lists/{name}.txt").read_text().splitlines() for name in ("train", "val", "test")}
    of_class = Counter(row.label for row in rows if row.split == "train")
    assert len(listed["train"]) + len(listed["val"]) == sum(math.ceil(n * 15 / 100) for n in of_class.values())
    assert len(listed["test"]) == sum(row.split == "test" for row in rows)
    assert not set(listed["train"]) & set(listed["val"])


def test_a_switch_of_a_settings_file_can_be_turned_either_way(
    photos: Path, tmp_path: Path, tiny_options: list[str]
) -> None:
    first = tmp_path / "first"
    assert (
        main(
            [
                "finetune",
                str(photos),
                *tiny_options,
                "--no-report",
                "--steps",
                "1",
                "--no-decay-norm-bias",
                "--out",
                str(first),
            ]
        )
        == 0
    )
    for option, value in (("--decay-norm-bias", True), ("--no-decay-norm-bias", False)):
        out = tmp_path / option
        settings = ["--settings", str(first / "config.json"), "--out", str(out)]
        assert main(["finetune", str(photos), option, *settings]) == 0
        assert json.loads((out / "config.json").read_text())["decay_norm_bias"] is value


def test_ls_breaks_no_name_or_address_at_100_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stochnorm.data import DATASETS
    from stochnorm.methods.catalogue import METHODS

    monkeypatch.setenv("COLUMNS", "100")
    main(["ls", "methods"])
    methods = capsys.readouterr().out
    assert all(text in methods for method in METHODS.values() for text in (*method.options, method.source))
    main(["ls", "datasets"])
    datasets = capsys.readouterr().out
    assert all(dataset.homepage in datasets for dataset in DATASETS.values())


def test_verify_prints_whole_lines_and_then_the_error(
    write_official: Callable[[str, Path], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stochnorm.data import verify

    monkeypatch.setenv("COLUMNS", "40")
    root = write_official("cub", tmp_path / "cub")
    assert main(["verify", str(root)]) == 1
    output = capsys.readouterr()
    assert output.out.splitlines() == verify(root).lines()
    assert output.err == f"error: {root} is not the complete official data set; see above\n"


def test_verify_of_a_manifest_counts_it_and_fails_where_images_are_missing(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = photos / "list.csv"
    manifest.write_text("path,label\nred/000.png,red\nblue/000.png,blue\n")
    assert main(["verify", str(manifest)]) == 0
    assert "found 2 classes, 2 images" in capsys.readouterr().out
    (photos / "red/000.png").unlink()
    assert main(["verify", str(manifest)]) == 1
    output = capsys.readouterr()
    assert "no file for 1 listed image: red/000.png" in output.out
    assert output.err == f"error: {manifest} is not complete; see above\n"


@pytest.mark.filterwarnings("ignore:.*is not the official set")
def test_lists_need_no_images(write_official: Callable[[str, Path], Path], tmp_path: Path) -> None:
    root = write_official("cub", tmp_path / "cub")
    assert main(["lists", str(root), str(tmp_path / "with"), "--rate", "50"]) == 0
    shutil.rmtree(root / "images")
    assert main(["lists", str(root), str(tmp_path / "without"), "--rate", "50"]) == 0
    assert (tmp_path / "without/train.txt").read_text() == (tmp_path / "with/train.txt").read_text()


def test_lists_pool_the_official_validation_images_when_asked(
    write_official: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    from stochnorm.data.published.aircraft import list_aircraft
    from stochnorm.runs.config import FinetuneConfig
    from stochnorm.training.images import split_rows

    source = list_aircraft(write_official("aircraft", tmp_path))
    counts = Counter(row.split for row in split_rows(source, FinetuneConfig("", pool_val=True)))
    assert counts == {"train": 18, "val": 6, "test": 12}  # of 8 of each class round(1.6) validate
    assert Counter(row.split for row in split_rows(source, FinetuneConfig(""))) == {"train": 12, "val": 12, "test": 12}


def test_no_image_but_those_of_the_lists_trains(tmp_path: Path) -> None:
    """With pool_val validation is cut from the list, unless a list says what validates; a test never is."""
    from stochnorm.data import Row, Source
    from stochnorm.runs.config import FinetuneConfig
    from stochnorm.training.images import split_rows

    rows = [Row(f"{split}/{i}.png", "ab"[i % 2], split) for split in ("train", "val") for i in range(20)]
    source = Source(tmp_path, rows)
    listed = [f"{split}/{i}.png" for split in ("train", "val") for i in range(10)]
    (tmp_path / "train.txt").write_text("\n".join(listed))
    settings = FinetuneConfig("", split_lists=str(tmp_path))
    parts = {row.path: row.split for row in split_rows(source, settings)}
    assert Counter(parts.values()) == {"train": 20, "val": 10}  # the data's other validation images validate
    pooled = {row.path: row.split for row in split_rows(source, replace(settings, pool_val=True))}
    assert sorted(pooled) == sorted(listed)
    assert Counter(pooled.values()) == {"train": 16, "val": 4}
    (tmp_path / "val.txt").write_text("val/19.png")
    assert Counter(row.split for row in split_rows(source, settings)) == {"train": 20, "val": 1}
    with pytest.raises(ValueError, match=r"val.txt already names the validation images; remove --pool-val"):
        split_rows(source, replace(settings, pool_val=True))


def test_too_few_images_are_said_with_the_lists_that_chose_them(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_options: list[str]
) -> None:
    lists = tmp_path / "lists.txt"
    arguments = ["finetune", str(photos), *tiny_options, "--no-report", "--steps", "1", "--out", str(tmp_path / "run")]
    lists.write_text("red/000.png 0\n")
    assert main([*arguments, "--split-lists", str(lists)]) == 1
    assert f"{lists}: no readable training image of class blue, green; add some" in capsys.readouterr().err
    lists.write_text("red/000.png 0\nblue/000.png\ngreen/000.png\n")
    assert main([*arguments, "--split-lists", str(lists)]) == 1
    assert f"{lists}: no readable validation image" in capsys.readouterr().err
    for image in [image for image in photos.glob("*/*.png") if image.stem not in ("000", "001")]:
        image.unlink()
    assert main(arguments) == 1  # two images a class are not enough: one trains, one tests
    message = f"{photos}: no readable validation image; add images: a class needs one for training, one for valid"
    assert message in capsys.readouterr().err


def test_tune_takes_no_overwrite(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["tune", "photos", "--overwrite"])
    assert stop.value.code == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_search_that_was_stopped_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object, **options: object) -> None:
        raise KeyboardInterrupt("stopped after 1 of 2 trials; the study is in search")

    monkeypatch.setattr("stochnorm.tuning.tune.tune", stopped)
    assert main(["tune", "my photos", "--trials", "2"]) == 130
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "stopped after 1 of 2 trials; the study is in search",
        "resume with: stochnorm tune 'my photos' --trials 2",
    ]


def test_settings_of_a_file_are_defaults_that_the_command_line_overrides(
    photos: Path, tmp_path: Path, tiny_options: list[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert (
        main(
            ["finetune", str(photos), *tiny_options, "--no-report", "--steps", "2", "--lr", "0.02", "--out", str(first)]
        )
        == 0
    )
    arguments = ["--settings", str(first / "config.json"), "--steps", "1", "--out", str(second)]
    assert main(["finetune", str(photos), *arguments]) == 0
    settings = json.loads((second / "config.json").read_text())
    assert (settings["lr"], settings["steps"], settings["backbone"]) == (0.02, 1, "test_resnet")


def test_tune_writes_settings_that_finetune_takes(photos: Path, tmp_path: Path, tiny_options: list[str]) -> None:
    search = tmp_path / "search"
    assert main(["tune", str(photos), *tiny_options, "--steps", "2", "--trials", "1", "--out", str(search)]) == 0
    chosen = str(search / "chosen.json")
    assert main(["finetune", str(photos), "--settings", chosen, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/report.html").is_file()
    assert json.loads((tmp_path / "run/config.json").read_text())["lr"] == json.loads(Path(chosen).read_text())["lr"]


def test_doctor_leaves_a_picture(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--weights", "random", "--image-size", "32", "--batch-size", "8", "--out", str(tmp_path / "check")]
    assert main(["doctor", "test_resnet", str(photos), *arguments]) == 0
    assert (tmp_path / "check.png").is_file()
    assert (tmp_path / "check.svg").is_file()
    assert "bn1" in capsys.readouterr().out


def test_errors_of_commands_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.json").write_text("{")
    for arguments, message in (
        (["verify", str(tmp_path)], "has no lists of a known data set"),
        (["download", "imagenet", str(tmp_path)], "imagenet"),
        (["finetune", "photos", "--settings", str(tmp_path / "bad.json")], "not a file of stochnorm's settings"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
