"""What validations leave is written seldom on a GPU; a run that was killed in between resumes to the same bits.

On the CPU, with a clock that counts steps.
"""

from __future__ import annotations

import csv
import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors import safe_open

import warm
from stochnorm import FinetuneConfig, finetune
from stochnorm.models.weights import read_state_dict
from stochnorm.runs.directory import Run
from stochnorm.training import loop, writer
from stochnorm.training.selection import selected
from stochnorm.training.step import TrainingStep

Configure = Callable[..., FinetuneConfig]
StopAt = Callable[[int, FinetuneConfig], None]

SETTINGS = {"method": "stochnorm", "steps": 12, "eval_every": 2, "log": "csv", "lr": 0.02}


class Killed(BaseException):
    """What nobody handles."""


class Clock:
    """Counts steps, and does something when a step begins."""

    def __init__(self) -> None:
        self.now = 0
        self.before: Callable[[TrainingStep, int], None] = lambda step, number: None

    def monotonic(self) -> float:
        return float(self.now)


@pytest.fixture
def whole(photos: Path, tmp_path: Path, config: Configure) -> Run:
    """Return a run that wrote each validation, and that nobody disturbed."""
    finetune(config(photos, tmp_path / "whole", **SETTINGS), quiet=True)
    return Run(tmp_path / "whole")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, whole: Run) -> Clock:
    """From here on writes take place every 4 steps, validations every 2."""
    clock = Clock()
    prepare = TrainingStep.prepare

    def begin(self: TrainingStep, number: int) -> None:
        clock.before(self, number)
        prepare(self, number)
        clock.now += 1

    monkeypatch.setattr(TrainingStep, "prepare", begin)
    monkeypatch.setattr(writer, "time", clock)
    monkeypatch.setattr(writer, "_WRITE_EVERY", {"cpu": 4.0})
    return clock


def records(run: Run) -> list[dict[str, Any]]:
    timing = {"seconds", "images_per_second"}
    return [{k: v for k, v in record.items() if k not in timing} for record in run.read_metrics()]


def steps_of(run: Run) -> list[int]:
    return [record["step"] for record in run.read_metrics()]


def logged(run: Run) -> list[int]:
    """Return the validated steps in the CSV tracker's file."""
    with (run.path / "csv/metrics.csv").open(encoding="utf-8", newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("val/loss")]


def step_of_model(run: Run) -> int:
    with safe_open(run.model, "pt") as file:
        return int(json.loads(file.metadata()["stochnorm"])["step"])


def saved_state(run: Run) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run.checkpoint, weights_only=True)
    return state


def assert_one_history(run: Run, steps: list[int]) -> None:
    """Check that all files tell of the same validations."""
    history = saved_state(run)["history"]
    assert [record["step"] for record in history] == steps == steps_of(run) == logged(run)
    assert step_of_model(run) == selected(history, "best")["step"]


def assert_same(run: Run, whole: Run) -> None:
    first, second = read_state_dict(whole.model), read_state_dict(run.model)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert step_of_model(run) == step_of_model(whole)
    assert records(run) == records(whole)
    assert run.read_result()["test"] == whole.read_result()["test"]
    assert logged(run)[: len(steps_of(run))] == steps_of(run) == [2, 4, 6, 8, 10, 12]
    assert not run.checkpoint.exists()


def test_an_undisturbed_run_leaves_the_same_however_often_it_writes(
    photos: Path, tmp_path: Path, config: Configure, clock: Clock, monkeypatch: pytest.MonkeyPatch, whole: Run
) -> None:
    written, told = [], []
    save = writer.save_checkpoint

    def spy(fabric: Any, run: Run, state: dict[str, Any]) -> None:
        written.append(state["step"])
        save(fabric, run, state)

    monkeypatch.setattr(writer, "save_checkpoint", spy)
    settings = config(photos, tmp_path / "seldom", **SETTINGS)
    finetune(settings, quiet=True, validated=lambda record: told.append((record["step"], clock.now)))
    assert written == [4, 8, 12]
    assert told == [(step, step) for step in (2, 4, 6, 8, 10, 12)]
    assert_same(Run(tmp_path / "seldom"), whole)


def test_a_cpu_writes_each_validation(
    photos: Path, tmp_path: Path, config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(writer, "save_checkpoint", lambda fabric, run, state: written.append(state["step"]))
    finetune(config(photos, tmp_path / "run", **SETTINGS), quiet=True)
    assert written == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("killed_after", [3, 7])
def test_a_killed_run_resumes_from_the_last_write(
    photos: Path, tmp_path: Path, config: Configure, clock: Clock, whole: Run, killed_after: int
) -> None:
    """Before the first one it begins again."""
    settings, run = config(photos, tmp_path / "run", **SETTINGS), Run(tmp_path / "run")

    def kill(step: TrainingStep, number: int) -> None:
        if number == killed_after:
            raise Killed

    clock.before = kill
    with pytest.raises(Killed):
        finetune(settings, quiet=True)
    if killed_after < 4:
        assert not (run.checkpoint.exists() or run.model.exists() or run.metrics.exists())
    else:
        assert_one_history(run, list(range(2, killed_after // 4 * 4 + 1, 2)))
    clock.before = lambda step, number: None
    finetune(replace(settings, resume=True), quiet=True)
    assert_same(run, whole)


@pytest.mark.parametrize("stop_after", [1, 7])
def test_a_stopped_run_writes_all_of_it(
    photos: Path, tmp_path: Path, config: Configure, clock: Clock, whole: Run, stop_at: StopAt, stop_after: int
) -> None:
    settings, run = config(photos, tmp_path / "run", **SETTINGS), Run(tmp_path / "run")
    stop_at(stop_after, settings)
    assert saved_state(run)["step"] == stop_after
    if stop_after > 1:
        assert_one_history(run, list(range(2, stop_after + 1, 2)))
    finetune(replace(settings, resume=True), quiet=True)
    assert_same(run, whole)


def test_whoever_is_told_may_end_the_training(
    photos: Path, tmp_path: Path, config: Configure, clock: Clock, whole: Run
) -> None:
    """The validation that it was told of is written."""
    settings, run = config(photos, tmp_path / "run", **SETTINGS), Run(tmp_path / "run")

    def end(record: dict[str, Any]) -> None:
        if record["step"] == 6:
            raise Killed

    with pytest.raises(Killed):
        finetune(settings, quiet=True, validated=end)
    assert saved_state(run)["step"] == 6
    assert_one_history(run, [2, 4, 6])
    finetune(replace(settings, resume=True), quiet=True)
    assert_same(run, whole)


@pytest.mark.parametrize("in_validation", [False, True])
def test_the_results_before_a_value_that_is_not_finite_are_kept(
    photos: Path,
    tmp_path: Path,
    config: Configure,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    whole: Run,
    in_validation: bool,
) -> None:
    """But no checkpoint that is older than they; so a resumed run begins at the start."""
    settings, run = config(photos, tmp_path / "run", **SETTINGS), Run(tmp_path / "run")
    with monkeypatch.context() as patch:
        if in_validation:
            evaluate, left = loop.evaluate_split, iter(range(3))

            def evaluated(*given: Any, **options: Any) -> Any:
                if next(left, None) is None:
                    raise FloatingPointError("a logit is nan")
                return evaluate(*given, **options)

            patch.setattr(loop, "evaluate_split", evaluated)
        else:
            clock.before = spoil
        with pytest.raises(FloatingPointError, match="The results up to the last validation are kept in"):
            finetune(settings, quiet=True)
    assert steps_of(run) == logged(run) == [2, 4, 6]
    assert step_of_model(run) == selected(run.read_metrics(), "best")["step"]
    assert records(run) == records(whole)[:3]
    assert not run.checkpoint.exists()
    clock.before = lambda step, number: None
    finetune(replace(settings, resume=True), quiet=True)
    assert_same(run, whole)


def spoil(step: TrainingStep, number: int) -> None:
    """Make the loss of the seventh step infinite or NaN."""
    if number == 6:
        with torch.no_grad():
            next(step.network.parameters()).fill_(torch.nan)


def test_results_that_are_written_keep_their_checkpoint(
    photos: Path, tmp_path: Path, config: Configure, clock: Clock
) -> None:
    """The loss is not finite in the step after a write."""
    run = Run(tmp_path / "run")

    def before(step: TrainingStep, number: int) -> None:
        spoil(step, number + 2)

    clock.before = before
    with pytest.raises(FloatingPointError):
        finetune(config(photos, run.path, **SETTINGS), quiet=True)
    assert_one_history(run, [2, 4])


def test_a_process_that_ends_at_once_resumes(photos: Path, tmp_path: Path, config: Configure, whole: Run) -> None:
    """In the seventh step, after a write behind the second validation, without a chance to clean up."""
    settings, run = config(photos, tmp_path / "run", **SETTINGS), Run(tmp_path / "run")
    code = f"""
import os, pickle
from stochnorm import finetune
from stochnorm.training import writer
from stochnorm.training.step import TrainingStep

prepare, clock = TrainingStep.prepare, [0.0]
def begin(self, number):
    if number == 6:
        os._exit(3)
    prepare(self, number)
    clock[0] += 1
class Time:
    monotonic = staticmethod(lambda: clock[0])
TrainingStep.prepare, writer.time, writer._WRITE_EVERY = begin, Time, {{"cpu": 4.0}}
finetune(pickle.loads({pickle.dumps(settings)!r}), quiet=True)
"""
    assert warm.run([sys.executable, "-c", code]).returncode == 3
    assert_one_history(run, [2, 4])
    finetune(replace(settings, resume=True), quiet=True)
    assert_same(run, whole)


@pytest.mark.parametrize(("device", "processes", "seconds"), [("cpu", 1, 0), ("cuda", 1, 10), ("cuda", 2, 0)])
def test_only_one_process_on_a_gpu_writes_seldom(device: str, processes: int, seconds: float) -> None:
    fabric = Mock(device=torch.device(device), world_size=processes)
    assert writer.Writer(Mock(fabric=fabric), {})._every == seconds
