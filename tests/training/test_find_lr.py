"""The learning-rate range test."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from stochnorm import FinetuneConfig, find_lr, finetune
from stochnorm.cli.main import main
from stochnorm.training.range_test import RangeTest, rates_between, smoothed
from stochnorm.training.step import TrainingStep

Make = Callable[..., FinetuneConfig]


def course(edge: float, *, start: float = 3.0, lowest: float = 1.0, steps: int = 60) -> RangeTest:
    """Losses that fall by a half wave up to a rate, and are twice as high as at the start from there on."""
    rates = rates_between(1e-5, 1.0, steps)
    way = [math.log(rate / 1e-5) / math.log(edge / 1e-5) for rate in rates]
    losses = [
        lowest + (start - lowest) * (1 + math.cos(math.pi * part)) / 2 if part <= 1 else 2 * start for part in way
    ]
    return RangeTest("vanilla", tuple(rates), tuple(losses))


@pytest.mark.parametrize("edge", [0.003, 0.03, 0.3])
def test_the_edge_is_where_the_loss_leaves_its_lowest(edge: float) -> None:
    found = course(edge)
    assert found.edge is not None
    assert edge / 1.5 < found.edge <= edge
    assert found.suggested == pytest.approx(found.edge / 4, rel=0.05)


def test_a_start_at_the_lowest_loss_has_the_edge_where_it_rises() -> None:
    """As from the probe: nothing falls before."""
    rates = rates_between(1e-5, 1.0, 60)
    losses = [0.5 + 0.2 * (-1) ** i if rate < 0.01 else 5.0 for i, rate in enumerate(rates)]
    found = RangeTest("frozen", tuple(rates), tuple(losses))
    assert found.edge is not None
    assert 0.005 < found.edge < 0.01


def test_one_bad_batch_moves_nothing() -> None:
    plain = course(0.03)
    losses = list(plain.losses)
    losses[20] = 50.0
    assert RangeTest("vanilla", plain.rates, tuple(losses)).edge == plain.edge


def test_a_collapse_to_a_constant_loss_is_not_near_the_lowest() -> None:
    found = course(0.003, start=2.5, lowest=0.6)
    losses = [2.5 if rate > 0.003 else loss for rate, loss in zip(found.rates, found.losses, strict=True)]
    settled = RangeTest("frozen", found.rates, tuple(losses))
    assert settled.edge == found.edge


def test_too_few_losses_suggest_nothing() -> None:
    assert RangeTest("vanilla", (0.1, 0.2), (1.0, 50.0)).suggested is None
    assert smoothed([1.0]) == [1.0]


def test_the_rates_rise_by_one_factor() -> None:
    rates = rates_between(1e-5, 1.0, 60)
    assert rates[0] == 1e-5
    assert rates[-1] == pytest.approx(1.0)
    assert all(b / a == pytest.approx(10 ** (5 / 59)) for a, b in pairwise(rates))
    with pytest.raises(ValueError, match=r"the rates must rise from above 0, got 1 to 0\.1"):
        rates_between(1.0, 0.1, 60)
    with pytest.raises(ValueError, match="needs at least 10 steps, got 3"):
        rates_between(0.1, 1.0, 3)


def test_the_optimizer_has_the_rates_of_the_test(
    config: Make, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []
    compute = TrainingStep.compute

    def spy(self: TrainingStep, *inputs: object) -> None:
        rates = {round(group["lr"], 12) for group in self.optimizer.param_groups}
        seen.append((min(rates), max(rates)))
        compute(self, *inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingStep, "compute", spy)
    settings = config(photos, tmp_path / "run", schedule="onecycle", warmup=0.2)
    found = find_lr(settings, steps=10, lowest=1e-6, highest=1e-4, quiet=True)
    assert [low for low, _ in seen] == pytest.approx(list(found.rates))
    assert [high for _, high in seen] == pytest.approx([10 * rate for rate in found.rates])  # the head
    assert len(found.losses) == 10
    assert not (tmp_path / "run").exists()


def test_the_first_loss_is_that_of_a_training(config: Make, photos: Path, tmp_path: Path) -> None:
    settings = config(photos, tmp_path / "run", steps=1, eval_every=1, method="vanilla+l2sp")
    found = find_lr(settings, steps=10, lowest=1e-6, highest=1e-4, quiet=True)
    result = finetune(settings, quiet=True)
    record = json.loads((result.run / "metrics.jsonl").read_text())
    assert found.losses[0] == pytest.approx(record["train_loss"] + record["penalty_l2sp"])


def test_a_finished_run_is_not_touched(config: Make, photos: Path, tmp_path: Path) -> None:
    settings = config(photos, tmp_path / "run")
    finetune(settings, quiet=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    first = find_lr(settings, steps=12, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before
    assert find_lr(replace(settings, resume=True), steps=12, quiet=True) == first  # and it repeats


def test_a_loss_that_is_lost_ends_the_test(config: Make, photos: Path) -> None:
    found = find_lr(config(photos, method="vanilla"), steps=40, lowest=1e-3, highest=1e9, quiet=True)
    assert len(found.losses) == len(found.rates) < 40
    assert found.suggested is not None


@pytest.mark.parametrize("method", ["auto", "probe"])
def test_methods_without_one_rate_are_refused(photos: Path, method: str) -> None:
    with pytest.raises(
        ValueError, match=f"method {method} has no learning rate to find; choose a --method that trains"
    ):
        find_lr(FinetuneConfig(str(photos), method=method), quiet=True)


def test_the_command_prints_and_writes_the_suggestion(
    photos: Path, tmp_path: Path, tiny_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [option for option in tiny_options if not option.startswith(("--steps", "--eval-every", "--lr"))]
    command = ["find-lr", str(photos), "--sweep-steps", "15", "--out", str(tmp_path / "lr"), *options]
    assert main(command) == 0
    content = json.loads((tmp_path / "lr" / "lr.json").read_text())
    assert f"suggested: --lr {content['suggested']:g} (a quarter" in capsys.readouterr().out
    assert len(content["losses"]) == len(content["rates"]) == len(content["smoothed"]) > 9
    assert {path.name for path in (tmp_path / "lr").iterdir()} == {"lr.json", "lr.png", "lr.svg"}


def test_a_preset_gives_the_settings_of_the_command(photos: Path) -> None:
    from stochnorm.cli.main import parse

    command = parse(["find-lr", str(photos), "--preset", "gentle", "--head", "random"])
    assert command.config().method == "frozen"
    assert command.config().augment == "gentle"
    assert command.config().head == "random"
