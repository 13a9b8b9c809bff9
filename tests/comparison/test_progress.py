"""The output of a comparison while it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from stochnorm import FinetuneConfig
from stochnorm.comparison.executors import Job, Outcome
from stochnorm.comparison.progress import GridProgress


def job(path: Path, step: int) -> Job:
    """A run of 100 steps that stands at one."""
    path.mkdir()
    record = {"step": step, "score": "top1", "train_loss": 0.5, "val_loss": 0.6, "val_top1": 75.0, "seconds": 9.0}
    (path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    return Job(FinetuneConfig("photos", steps=100, out=str(path)))


def text_of(progress: GridProgress) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(progress._render())
    return captured.get()


def test_a_line_an_ended_run_with_its_score_or_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, held = (job(tmp_path / name, 100) for name in ("good", "bad", "held"))
    with GridProgress(5, 2, "runs") as progress:
        for title, one in (("one", good), ("two", bad), ("three", held)):
            progress.started(title, one)
        progress.ended("one", good, Outcome("done"))
        progress.ended("two", bad, Outcome("failed", "the loss is nan"))
        progress.ended("three", held, Outcome("busy"))
        assert progress.done == 3
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines == [
        "2 of 5 runs are already done",
        "done   one  step 100  loss 0.500  val 75.0",
        "failed two: the loss is nan",
    ]


def test_the_time_left_counts_what_was_done_since_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four runs: one was there, one ended, and one went from a quarter to three quarters: 1.5 of 2.75 in 60 s."""
    now = 1000.0
    monkeypatch.setattr("stochnorm.comparison.progress.time.monotonic", lambda: now)
    with GridProgress(4, 1, "runs", quiet=True) as progress:
        ended, running = job(tmp_path / "ended", 0), job(tmp_path / "running", 25)
        progress.started("ended", ended)
        progress.started("running", running)
        assert "time left unknown" in text_of(progress)
        now += 60
        progress.ended("ended", ended, Outcome("done"))
        (tmp_path / "running/metrics.jsonl").unlink()
        (tmp_path / "running").rmdir()
        job(tmp_path / "running", 75)
        progress.look()
        shown = text_of(progress)
    assert "2 of 4 runs done, 2 left" in shown
    assert "about 50 s left" in shown
    assert "step 75  loss 0.500  val 75.0" in shown
