"""Experiments find their data, and say what is missing or failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stochnorm.cli.main import main
from stochnorm.comparison.compare import Comparison
from stochnorm.comparison.grid import Grid, GridRun
from stochnorm.paper import reproduce as paper
from stochnorm.paper.catalogue import EXPERIMENTS
from stochnorm.paper.reproduce import find_data, reproduce
from stochnorm.runs.records import Failure, Record


def test_data_sets_are_found_by_their_files(tmp_path: Path, write_official: Callable[[str, Path], Path]) -> None:
    write_official("cub", tmp_path / "birds")
    write_official("chestxray14", tmp_path / "x")
    assert find_data(tmp_path, ["cub", "cars"]) == {"cub": tmp_path / "birds"}
    assert find_data(tmp_path / "x", ["chestxray14"]) == {"chestxray14": tmp_path / "x"}


def test_no_data_set_at_all_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    (tmp_path / "holidays").mkdir()
    for arguments, texts in (
        (
            (tmp_path, ["cub", "cars"]),
            ["holidays", "CUB-200-2011: images.txt", "Stanford Cars: devkit", "download cub"],
        ),
        ((tmp_path / "none", ["chestxray14"]), ["no folder", "Data_Entry_2017.csv", "Box"]),
    ):
        with pytest.raises(FileNotFoundError) as error:
            find_data(*arguments)
        for text in texts:
            assert text in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "add --data-root FOLDER"),
        ({"scale": "small", "weights": "resnet50.pth"}, "remove --weights"),
        ({"data_root": "nowhere"}, "nowhere: none of the data sets is here"),
    ],
)
def test_options_that_cannot_work_are_said_first(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        reproduce("table3", out=str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_weights_gives_each_backbone_its_file(runs: Callable[..., list[GridRun]], tmp_path: Path) -> None:
    for name in ("resnet50-0676ba61.pth", "vgg16_bn-6c64b313.pth"):
        (tmp_path / name).touch()
    assert {run.config.weights for run in runs("table3", weights=str(tmp_path))} == {
        str(tmp_path / "resnet50-0676ba61.pth")
    }
    with pytest.raises(FileNotFoundError, match=r"no file inception_v3\*.pth"):
        runs("figure3", weights=str(tmp_path))
    (tmp_path / "inception_v3_google-0cc3c7bd.pth").touch()
    assert len({run.config.weights for run in runs("figure3", weights=str(tmp_path))}) == 2
    with pytest.raises(ValueError, match=r"a file of each: vgg16_bn\*.pth, inception_v3\*.pth"):
        reproduce("figure3", data_root=str(tmp_path), weights=str(tmp_path / "vgg16_bn-6c64b313.pth"))


def test_both_scales_in_one_directory_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"": "small"}')
    with pytest.raises(ValueError, match="holds runs of small scale, not of paper scale; choose another --out"):
        reproduce("table3", data_root=str(tmp_path), out=str(tmp_path))


@pytest.fixture
def fabricated(record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch) -> list[Grid]:
    """In place of training: runs that end at once, but those of DELTA fail. Gives the grids that were asked for."""
    asked: list[Grid] = []

    def compare(grid: Grid, out: Path, **options: Any) -> Comparison:
        asked.append(grid)
        done = [record(run, 50.0 + run.repeat) for run in grid.runs() if run.variant != "delta"]
        failed = [
            Failure(run.variant, "cub", "", run.config.rate, run.repeat, "", "it diverged")
            for run in grid.runs()
            if run.variant == "delta"
        ]
        return Comparison(out, done, failed)

    monkeypatch.setattr(paper, "compare", compare)
    return asked


def test_missing_data_sets_are_dashes_with_a_warning(
    tmp_path: Path, write_official: Callable[[str, Path], Path], fabricated: list[Grid]
) -> None:
    root = write_official("cub", tmp_path / "data/CUB_200_2011").parent
    with pytest.warns(UserWarning, match="is not in") as warned:
        result = reproduce("figure4d", data_root=str(root), out=str(tmp_path / "out"), quiet=True)
    assert len(warned) == 2
    assert [grid.data for grid in fabricated] == [(str(root / "CUB_200_2011"),)]
    assert [line.n for line in result.lines] == [5, 5, 5, 0, 0, 0, 0, 0, 0]
    text = (tmp_path / "out/figure4d/figure4d.md").read_text()
    assert f"Stanford Cars is not in {root}: dashes." in text
    assert "CUB-200-2011 in" in text
    assert "not the official set" in text


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_failed_runs_are_dashes_and_said_last(
    tmp_path: Path, write_official: Callable[[str, Path], Path], fabricated: list[Grid]
) -> None:
    root = write_official("cub", tmp_path / "data/CUB_200_2011").parent
    with pytest.raises(ValueError, match="20 of 100 runs failed: it diverged"):
        reproduce("table3", data_root=str(root), out=str(tmp_path / "out"), trials=0, quiet=True)
    text = (tmp_path / "out/table3/table3.md").read_text()
    assert "| 15 % | delta | - | 46.83 ± 0.21 | - |" in text
    assert "Failed: delta, cub, 15 %, repeat 1 and 19 more: it diverged" in text


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_all_of_them_go_on_after_one_that_cannot(
    tmp_path: Path,
    write_official: Callable[[str, Path], Path],
    fabricated: list[Grid],
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = write_official("cub", tmp_path / "data/CUB_200_2011").parent
    assert main(["paper", "all", "--data-root", str(root), "--out", str(tmp_path / "out"), "--trials", "0"]) == 1
    assert len(fabricated) == len(EXPERIMENTS)  # without table2, but figure3 has two
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"table2: {root}: none of the data sets is here" in error
    assert "table3: 20 of 100 runs failed: it diverged" in error
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(EXPERIMENTS) - {"table2"}
