"""Executors: workers that die or are closed."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stochnorm import FinetuneConfig
from stochnorm.comparison.executors import Job, executor
from stochnorm.runs.directory import Run

pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture
def tiny(tiny: dict[str, Any]) -> dict[str, Any]:
    return tiny | {"steps": 6, "eval_every": 2}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_worker_that_is_killed_fails_its_run_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Callable[..., FinetuneConfig]
) -> None:
    """Its images come from a pipe that never ends, so that it can be killed while it works."""
    (photos / "red/pipe.png").unlink(missing_ok=True)
    os.mkfifo(photos / "red/pipe.png")
    settings = config(photos)
    workers = executor("local", workers=1, threads=1, processes=1, logs=tmp_path / "logs")
    try:
        job = Job(replace(settings, out=str(tmp_path / "stuck")))
        workers.start(job)
        deadline = time.monotonic() + 60
        while not (tmp_path / ".stuck.lock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (worker,) = workers._busy  # type: ignore[attr-defined]
        os.kill(worker.process.pid, signal.SIGKILL)
        ((ended, how),) = workers.wait(60)
        assert ended == job
        assert how.state == "failed"
        assert how.reason.startswith("its process was killed by SIGKILL; out of memory?")
        (photos / "red/pipe.png").unlink()
        workers.start(job)
        ((ended, how),) = workers.wait(60)
        assert (ended, how.state) == (job, "done")

        # One that is asked to stop answers so, and takes the next job.
        long = Job(replace(settings, steps=4000, out=str(tmp_path / "long")))
        workers.start(long)
        while not (tmp_path / "long/metrics.jsonl").exists():
            assert time.monotonic() < deadline + 60
            time.sleep(0.05)
        (worker,) = workers._busy  # type: ignore[attr-defined]
        os.kill(worker.process.pid, signal.SIGTERM)
        ((ended, how),) = workers.wait(60)
        assert (ended, how.state) == (long, "stopped")
        workers.start(replace(job, config=replace(job.config, out=str(tmp_path / "next"))))
        ((_, how),) = workers.wait(60)
        assert how.state == "done"
    finally:
        workers.close()


@pytest.mark.parametrize(("name", "processes"), [("local", 1), ("local", 2), ("ray", 1)])
def test_closing_an_executor_stops_its_jobs_after_their_last_step(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    name: str,
    processes: int,
    config: Callable[..., FinetuneConfig],
) -> None:
    """Not at their last validation."""
    if name == "ray":
        pytest.importorskip("ray")
        monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as what nohup starts in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    run = Run(tmp_path / "run")
    settings = config(photos, run.path, steps=10**6, eval_every=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        jobs = executor(name, workers=1, threads=1, processes=processes, logs=tmp_path / "logs")
        jobs.start(Job(settings, processes=processes))
        try:
            deadline = time.monotonic() + 120
            while not run.checkpoint.exists():
                assert not jobs.wait(0.05)
                assert time.monotonic() < deadline
            time.sleep(1)
        finally:
            jobs.close()
    assert torch.load(run.checkpoint, weights_only=False)["step"] > run.read_metrics()[-1]["step"]
    assert run.state == "stopped"
    assert not list(tmp_path.glob(".*.json"))
