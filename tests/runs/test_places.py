"""Where a run may be, and what stands in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm import FinetuneConfig, Grid, Variant, compare, finetune
from stochnorm.cli.main import main
from stochnorm.runs.directory import Run, RunInUseError

Configure = Callable[..., FinetuneConfig]


def test_the_root_of_the_disk_is_no_run_directory(photos: Path, config: Configure) -> None:
    with pytest.raises(FileExistsError, match=r"/ is the root of the disk, not a run directory; choose another out"):
        finetune(config(photos, "/"), quiet=True)


def test_the_working_directory_may_be_one_if_it_is_empty(
    photos: Path, tmp_path: Path, config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    with pytest.raises(ValueError, match="lies inside the images' folder"):
        finetune(config(photos, "."), quiet=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    finetune(config(photos, ".", steps=4), quiet=True)
    assert Run(tmp_path / "here").read_result()["test"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path / "full")
    with pytest.raises(FileExistsError, match="holds other files; choose another out"):
        finetune(config(photos, "."), quiet=True)


def test_a_directory_of_two_names_has_one_lock(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with Run(tmp_path / "run").held(), pytest.raises(RunInUseError), Run(tmp_path / "link").held():
        pass


def test_a_link_in_place_of_the_lock_is_one_line(
    photos: Path, tmp_path: Path, tiny_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".run.lock").symlink_to(tmp_path / "precious")
    assert main(["finetune", str(photos), *tiny_options, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert said == f"error: {tmp_path}/.run.lock is a link, where the file of a lock should be; remove it\n"
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_photograph_given_as_a_table_stays(
    photos: Path, tmp_path: Path, config: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    """`predict RUN --csv *.png`, a forgotten name; and `--csv` and `--json` of `evaluate`."""
    run = finetune(config(photos, tmp_path / "run", steps=4), quiet=True).run
    files = sorted(map(str, (photos / "red").glob("*.png")))
    before = {path: path.read_bytes() for path in (*photos.rglob("*.png"), *run.iterdir()) if path.is_file()}
    for arguments in (
        ["predict", str(run), "--csv", *files],
        ["predict", str(run), "--csv", str(run / "model.safetensors"), *files],
        ["evaluate", str(run), "--csv", str(run / "config.json")],
        ["evaluate", str(run), "--json", str(run / "result.json")],
        ["report", str(run), "--out", files[0]],
    ):
        assert main(arguments) == 1, arguments
        assert "that stochnorm wrote; choose another file name, or" in capsys.readouterr().err.replace("\n", " ")
    assert before == {path: path.read_bytes() for path in before}
    table = tmp_path / "table.csv"
    for _ in range(2):  # the second one over the first
        assert main(["predict", str(run), files[0], "--csv", str(table)]) == 0
    assert table.read_text().count("\n") == 2
    table.write_text("mine")
    assert main(["predict", str(run), files[0], "--csv", str(table), "--overwrite"]) == 0
    assert table.read_text().startswith("path,predicted,probability,")


def test_a_comparison_is_not_written_over_other_tables(photos: Path, tmp_path: Path, config: Configure) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/results.csv").write_text("of years")
    grid = Grid(config(photos), (Variant("vanilla", {"method": "vanilla"}),), repeats=1)
    with pytest.raises(
        FileExistsError, match=r"mine holds results.csv, and no comparison; choose another out \(--out\)"
    ):
        compare(grid, tmp_path / "mine", quiet=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["results.csv"]
    (tmp_path / "mine/runs").mkdir()  # of finetune
    with pytest.raises(FileExistsError, match=r"mine holds results.csv, and no comparison"):
        compare(grid, tmp_path / "mine", quiet=True)
    assert (tmp_path / "mine/results.csv").read_text() == "of years"
