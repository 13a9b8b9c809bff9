"""The page at the end of a run, from training to the browser's file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm import FinetuneConfig, finetune
from stochnorm.cli.main import main
from stochnorm.runs.names import run_name

Configure = Callable[..., FinetuneConfig]


def test_a_run_ends_with_its_page(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_options: list[str]
) -> None:
    out = tmp_path / "run"
    assert main(["finetune", str(photos), *tiny_options, "--out", str(out)]) == 0
    assert f"report: {out}/report.html".replace(" ", "") in re.sub(r"\s", "", capsys.readouterr().out)
    page = (out / "report.html").read_text()
    assert "stochnorm on photos" in page
    assert page.count('class="chart"') == 5
    assert "is missing or damaged" not in page


def test_a_page_that_cannot_be_written_loses_no_result(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Configure
) -> None:
    def fails(*args: object, **options: object) -> None:
        raise RuntimeError("no page today")

    monkeypatch.setattr("stochnorm.report.write_report", fails)
    settings = config(photos, tmp_path / "run", report=True)
    with pytest.warns(UserWarning, match=r"report\.html was not written \(no page today\); the result is complete"):
        result = finetune(settings, quiet=True)
    assert result.test is not None
    assert (result.run / "result.json").is_file()


def test_no_report_leaves_the_page_out_and_is_the_same_run(photos: Path, tmp_path: Path, config: Configure) -> None:
    settings = config(photos, tmp_path / "run")
    assert not (finetune(settings, quiet=True).run / "report.html").exists()
    assert run_name(settings) == run_name(config(photos, report=True))


def test_the_report_command_says_what_it_wrote(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], config: Configure
) -> None:
    settings = config(photos, tmp_path / "run")
    finetune(settings, quiet=True)
    assert main(["report", str(tmp_path / "run"), "--title", "Ours"]) == 0
    written = capsys.readouterr().out.split()
    assert [Path(name).name for name in written][:2] == ["report.html", "results.md"]
    assert all(Path(name).is_file() for name in written)
    assert "<h1>Ours</h1>" in (tmp_path / "run/report.html").read_text()
    assert main(["report", str(tmp_path / "nothing")]) == 1
    assert "no finished run there" in capsys.readouterr().err
