"""runs, clean and env: what there is, what it takes up, what it runs on."""

from __future__ import annotations

import getpass
import io
import json
import os
from pathlib import Path

import pytest

from stochnorm.cli.main import main
from stochnorm.files import cache_directory
from stochnorm.runs.config import FinetuneConfig
from stochnorm.text import DASH


def make_run(path: Path, test: float | None = None, **settings: object) -> Path:
    """Write a directory like that of a run: finished with a test score, else stopped."""
    path.mkdir(parents=True)
    config = {"data": "photos", "method": "vanilla", **settings}
    (path / "config.json").write_text(json.dumps(config))
    (path / "checkpoint.pt").write_bytes(b"x" * 3000)
    (path / "model.safetensors").write_bytes(b"x" * 5000)
    if test is not None:
        metrics = {"images": 10, "loss": 1.0, "top1": test, "per_class": [test]}
        result = {
            "config": config, "score": "top1", "classes": ["a", "b"], "images": {"train": 8, "val": 2, "test": 10},
            "method": {}, "selected": {"step": 1, "by": "validation"}, "validation": metrics, "test": metrics,
            "cost": {}, "environment": {},
        }  # fmt: skip
        (path / "result.json").write_text(json.dumps(result))
    return path


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    make_run(Path("runs/better"), 80.0, lr=0.01)
    make_run(Path("runs/worse"), 60.0, l2sp={"alpha": 0.2}, method="l2sp")
    make_run(Path("runs/stopped"))
    make_run(Path("runs/better/candidates/part"), 50.0)
    make_run(Path("runs/compare/runs/one"), 70.0)
    Path("runs/compare/labels.json").write_text("{}")
    images = cache_directory("images")
    images.mkdir(parents=True)
    (images / "a.images").write_bytes(b"x" * 2_000_000)
    (images / ".lock").touch()
    return Path("runs")


def files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.mark.usefixtures("runs")
def test_runs_are_listed_with_their_scores_in_an_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--sort", "test"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("runs/")]
    assert [row[:5] for row in rows] == [
        ["runs/better", "vanilla", "done", "80.0", "80.0"],
        ["runs/compare/runs/one", "vanilla", "done", "70.0", "70.0"],
        ["runs/worse", "l2sp", "done", "60.0", "60.0"],
        ["runs/stopped", "vanilla", "stopped", DASH, DASH],
    ]
    assert "4 runs, " in out
    assert main(["runs", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("error: nowhere: no such folder; stochnorm finetune makes runs in")


@pytest.mark.usefixtures("runs")
def test_the_settings_of_two_runs_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--diff", "runs/better", "runs/worse"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    default = FinetuneConfig("x")
    for row in (
        ["method", "vanilla", "l2sp"],
        ["lr", "0.01", str(default.lr)],
        ["l2sp.alpha", str(default.l2sp.alpha), "0.2"],
        ["test", "%", "80.0", "60.0"],
    ):
        assert row in rows
    assert not any(row[:1] == ["steps"] for row in rows)
    assert main(["runs", "--diff", "runs/better/config.json", "runs/better"]) == 0
    assert "the settings are the same" in capsys.readouterr().out
    assert main(["runs", "--diff", "runs/better"]) == 1
    assert "--diff compares two runs or files of settings, got 1; give two" in capsys.readouterr().err


def test_clean_shows_asks_and_keeps_all_results(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(Path())
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # no terminal
    assert main(["clean"]) == 1
    output = capsys.readouterr()
    assert "2.0 MB  cache: decoded images" in output.out
    assert "runs/better: checkpoints of a finished run" in output.out
    assert "runs/stopped" not in output.out
    assert output.err == "error: nothing was removed, since there is nobody to ask; give --yes\n"
    assert files(Path()) == before
    assert main(["clean", "--yes"]) == 0
    assert "removed 2.0 MB" in capsys.readouterr().out
    gone = before - files(Path())
    assert gone == {
        "cache/stochnorm/images/a.images", "runs/better/checkpoint.pt", "runs/worse/checkpoint.pt",
        "runs/better/candidates/part/checkpoint.pt", "runs/compare/runs/one/checkpoint.pt",
    }  # fmt: skip
    assert main(["clean", str(runs), "--models", "--yes"]) == 0
    assert before - files(Path()) == gone | {"runs/compare/runs/one/model.safetensors"}
    assert main(["clean", "--yes"]) == 0
    assert capsys.readouterr().out.endswith("nothing to remove\n")


@pytest.mark.usefixtures("runs")
def test_env_says_what_an_issue_needs_and_names_nobody(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCHNORM_TRACEBACK", "")
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["torch"] == __import__("torch").__version__
    assert facts["caches"] == "2.0 MB"
    assert {"stochnorm", "python", "system", "device", "timm", "pillow", "variables"} <= facts.keys()
    assert os.getcwd() not in out  # noqa: PTH109
    assert getpass.getuser() == "root" or getpass.getuser() not in out
