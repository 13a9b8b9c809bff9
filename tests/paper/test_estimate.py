"""Speeds of this machine, with the smallest networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from stochnorm import FinetuneConfig
from stochnorm.cli.main import main
from stochnorm.paper import estimate
from stochnorm.paper.experiment import RESNET50
from stochnorm.paper.hours import Speeds, hours_of
from stochnorm.paper.speeds import measure


def test_each_network_and_method_is_measured_once(
    config: Callable[..., FinetuneConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    methods = ("stochnorm+delta", "vanilla", "stochnorm", "bin")
    found = measure([config(Path("cub"), method=method) for method in methods], threads=1, quiet=True)
    assert list(found.training) == list(found.evaluation) == ["test_resnet"]
    assert list(found.training["test_resnet"]) == ["vanilla", "stochnorm", "delta", "bin"]
    assert all(speed > 0 for speed in (*found.training["test_resnet"].values(), *found.evaluation.values()))
    assert found.device == "cpu, 1 thread"
    assert "1 step of 8 images after as many" in found.how
    assert torch.get_num_threads() == threads
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_the_command_prints_hours_and_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def measured(configs: list[FinetuneConfig], *, threads: int, quiet: bool) -> Speeds:
        asked.extend((len(configs), threads))
        return Speeds({RESNET50: dict.fromkeys(("vanilla", "bin", "stochnorm"), 1000.0)}, {RESNET50: 1e9})

    monkeypatch.setattr(estimate, "measure", measured)
    monkeypatch.chdir(tmp_path)
    assert main(["paper", "figure4d", "--estimate"]) == 0
    line = next(text.split() for text in capsys.readouterr().out.splitlines() if "figure4d" in text)
    assert line == ["figure4d", "45", "407,250", f"{45 * 9050 * 48 / 1000 / 3600:.1f}"]
    assert asked == [45, 0]
    assert not list(tmp_path.iterdir())


def test_too_few_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 0, got -1"):
        estimate.estimate(["figure4d"], workers=-1)


def test_an_interrupt_gives_no_advice_to_resume(
    config: Callable[..., FinetuneConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("stopped after step 1 of 2; checkpoint in a folder that is gone")

    monkeypatch.setattr("stochnorm.paper.speeds.finetune", stopped)
    with pytest.raises(KeyboardInterrupt) as stop:
        measure([config(Path("cub"), method="vanilla")], quiet=True)
    assert not str(stop.value)


def test_the_table_says_how_it_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    training = {RESNET50: dict.fromkeys(("vanilla", "bin", "stochnorm"), 1000.0)}
    speeds = Speeds(training, {RESNET50: 5000.0}, device="one GPU", devices=2, how="30 steps")
    estimate.show_estimate(Console(width=80), hours_of(["figure4c", "figure4d"], speeds))
    lines = capsys.readouterr().out.splitlines()
    rows = {words[0]: words[1:] for words in map(str.split, lines) if len(words) == 5}
    hours = hours_of(["figure4d"], speeds).total.hours
    assert rows["figure4d"] == ["45", "407,250", f"{hours:.1f}", f"{hours / 2:.1f}"]
    assert rows["total"][:2] == [f"{45 + 75 - 30}", f"{90 * 9050:,}"], "vanilla and p = 0.5 are runs of both"
    assert any(line.startswith("one GPU: 30 steps") for line in lines)
    assert max(map(len, lines)) <= 80


def test_long_hours_have_two_digits_and_a_cpu_works_on_several_runs(capsys: pytest.CaptureFixture[str]) -> None:
    training = {RESNET50: dict.fromkeys(("vanilla", "bin", "stochnorm"), 1.0)}
    result = hours_of(["figure4d"], Speeds(training, {RESNET50: 5000.0}, device="cpu, 1 thread", devices=2))
    assert 5430 < result.total.hours < 5450
    estimate.show_estimate(Console(width=80), result)
    printed = capsys.readouterr().out
    assert next(line.split() for line in printed.splitlines() if "figure4d" in line)[-2:] == ["5,400", "2,700"]
    assert "hours, 2 at a time" in printed
    assert "devices" not in printed
