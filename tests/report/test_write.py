"""Pages and tables on disk, and the runs that the command finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stochnorm.report import report, write_report
from stochnorm.runs.records import Record, read_records, write_records

Rows = dict[tuple[str, str], tuple[str, list[str]]]


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs at least one finished run, got none"):
        write_report([], tmp_path / "report.html", root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_finds_runs_by_directory_and_by_records(
    comparison: list[Record], tmp_path: Path, embedded: Callable[[str, str], Any], rows: Callable[[str], Rows]
) -> None:
    grid = tmp_path / "grid"
    files = report([grid])
    assert [path.name for path in files] == [
        "report.html",
        "results.md",
        "results.tex",
        "results.csv",
        "differences.csv",
    ]
    by_directory = rows(files[0].read_text())
    write_records(grid / "records.jsonl", comparison)
    (out,) = report([grid / "records.jsonl"], tmp_path / "other.html")[:1]
    page = out.read_text()
    assert rows(page) == by_directory
    assert embedded(page, "thumbnails")  # so its runs were found, relative to the file
    twice = report([grid, grid / "records.jsonl"], tmp_path / "twice.html")[0].read_text()
    assert rows(twice) == by_directory


def test_the_command_names_the_runs_that_failed(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str]
) -> None:
    done = single()
    for run in ("runs/photos-delta-1a2b3c4d", done.run):  # the second one was tried again, and finished
        (tmp_path / "grid" / run).mkdir(exist_ok=True)
        (tmp_path / "grid" / run / "failure.json").write_text(json.dumps({"reason": "the loss is <nan>"}))
    (page, *_) = report([tmp_path / "grid"])
    note = f"1 run in {tmp_path}/grid failed, not counted here: photos-delta-1a2b3c4d (the loss is <nan>)."
    assert note in words(page.read_text())


def test_the_page_on_several_directories_is_in_a_folder_of_its_own(
    single: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [tmp_path / "grid" / single(settings={"seed": seed}).run for seed in (0, 1)]
    before = {path: path.stat().st_mtime_ns for run in runs for path in run.iterdir()}
    monkeypatch.chdir(tmp_path)
    files = report(runs)
    assert {file.parent for file in files} == {Path("report")}
    assert {path: path.stat().st_mtime_ns for run in runs for path in run.iterdir()} == before
    assert report(runs[:1])[0] == runs[0] / "report.html"


def test_into_a_device_the_page_is_written_alone(single: Callable[..., Record], tmp_path: Path) -> None:
    single()
    link = tmp_path / "page.html"
    link.symlink_to("/dev/null")
    before = set(tmp_path.iterdir())
    assert report([tmp_path / "grid"], link) == [link]
    assert set(tmp_path.iterdir()) == before
    with pytest.raises(ValueError, match=r"results.csv is the name of a table that is written beside the page"):
        report([tmp_path / "grid"], tmp_path / "results.csv")


def test_a_report_is_written_where_it_can_be(single: Callable[..., Record], tmp_path: Path) -> None:
    single()
    with pytest.raises(FileNotFoundError, match=r"the folder .*missing does not exist"):
        report([tmp_path / "grid"], tmp_path / "missing/report.html")
    with pytest.raises(FileNotFoundError, match="no finished run there"):
        report([tmp_path])
        report([tmp_path / "nothing"])
    assert read_records([tmp_path / "grid"])


@pytest.mark.usefixtures("comparison")
def test_what_has_no_finished_run_is_left_out_with_a_warning(tmp_path: Path) -> None:
    """As with `stochnorm report runs/*`, where one run is not finished."""
    grid, stopped = tmp_path / "grid", tmp_path / "stopped"
    stopped.mkdir()
    with pytest.warns(UserWarning, match=f"no finished run in {stopped}; left out of the report"):
        page = report([stopped, grid], tmp_path / "page.html")[0]
    assert page.is_file()
    with pytest.raises(FileNotFoundError, match=f"{stopped}: no finished run there"):
        report([stopped])
    with pytest.raises(FileNotFoundError):
        report([grid, tmp_path / "nowhere"])
