"""The choice among candidates, from made-up tables of right and wrong answers."""

from __future__ import annotations

import math

import pytest
import torch

from stochnorm.training.auto.auto import why
from stochnorm.training.auto.candidates import Kind
from stochnorm.training.auto.choose import Choice, Scored, auc_error, calibrated_loss, choose, paired_error
from stochnorm.training.auto.state import Tried

PROBE, BETWEEN, FROZEN, VANILLA = Kind.probe, Kind.between, Kind.frozen, Kind.vanilla


def table(**right: str) -> dict[str, torch.Tensor]:
    """Answers as text, 1 for right; repeated ten times."""
    return {name: torch.tensor([int(c) for c in text * 10]) for name, text in right.items()}


def chosen(answers: dict[str, torch.Tensor], losses: dict[str, float]) -> str:
    scored = [
        Scored(name, kind, 100 * float(right.float().mean()), losses[name])
        for kind, (name, right) in enumerate(answers.items())
    ]
    return choose(scored, lambda a, b: paired_error(answers[a], answers[b])).name


def test_a_clear_winner_is_chosen_whatever_the_losses() -> None:
    answers = table(probe="1111000000", frozen="1111111100")
    assert chosen(answers, {"probe": 0.5, "frozen": 2.0}) == "frozen"


def test_the_lowest_loss_within_one_standard_error_is_chosen() -> None:
    answers = table(probe="1110000000", slow="1111111100", fast="1111111100")
    answers["fast"][-1] = 1  # one image of a hundred more: a standard error of 1 point
    assert chosen(answers, {"probe": 0.5, "slow": 1.0, "fast": 1.1}) == "slow"
    assert chosen(answers, {"probe": 0.5, "slow": 1.1, "fast": 1.0}) == "fast"


def test_of_equal_losses_the_simplest_is_chosen() -> None:
    scored = [Scored("vanilla", VANILLA, 70.0, 1.0), Scored("between", BETWEEN, 70.0, 1.0)]
    assert choose(scored, lambda best, name: 1.0).name == "between"


def test_nothing_below_the_probe_is_chosen() -> None:
    """Though its loss is the lowest, and it is close to the best."""
    scored = [Scored("probe", PROBE, 70.0, 1.5), Scored("frozen", FROZEN, 69.5, 0.5), Scored("vanilla", VANILLA, 72, 1)]
    assert choose(scored, lambda best, name: 5.0).name == "vanilla"


def test_the_probe_is_chosen_where_it_is_best() -> None:
    scored = [Scored("probe", PROBE, 77.0, 1.0), Scored("frozen", FROZEN, 77.0, 1.2), Scored("vanilla", VANILLA, 60, 2)]
    assert choose(scored, lambda best, name: 3.0) == ("probe", "probe", 0.0)


def test_a_network_of_batch_statistics_must_be_clearly_better_than_frozen_ones() -> None:
    probe, frozen = Scored("probe", PROBE, 80.0, 1.2), Scored("frozen@0.5", BETWEEN, 90.0, 0.6, frozen=True)
    vanilla, between = Scored("vanilla", VANILLA, 91.0, 0.3), Scored("vanilla@0.5", BETWEEN, 90.0, 0.4)
    assert choose([probe, frozen, vanilla, between], lambda a, b: 2.0).name == "frozen@0.5"
    assert choose([probe, frozen, vanilla, between], lambda a, b: 0.5).name == "vanilla"
    assert choose([probe, vanilla, between], lambda a, b: 2.0).name == "vanilla"  # nothing is frozen


def test_the_calibrated_loss_is_that_of_the_best_temperature() -> None:
    """Three of four are right with the same margin m / T: the loss is least where the softmax of it is 3 / 4."""
    logits = torch.tensor([[5.0, 0.0]] * 4)
    targets = torch.tensor([0, 0, 0, 1])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert calibrated_loss(logits, targets) == pytest.approx(entropy, rel=1e-3)
    assert torch.nn.functional.cross_entropy(logits, targets) > 2 * entropy


def test_the_error_is_that_of_the_differences() -> None:
    first, second = torch.tensor([1, 1, 1, 0, 1, 0]), torch.tensor([0, 1, 1, 0, 1, 1])
    differences = first.double() - second.double()
    assert paired_error(first, second) == pytest.approx(100 * float(differences.std()) / math.sqrt(6))
    assert paired_error(first, first) == 0


def test_images_of_a_group_count_as_one() -> None:
    """Four copies of each image are no new evidence."""
    first, second = torch.tensor([1, 1, 1, 0, 1, 0]), torch.tensor([0, 1, 1, 0, 1, 1])
    copies = [one.repeat_interleave(4) for one in (first, second)]
    groups = [str(i // 4) for i in range(24)]
    assert paired_error(*copies, groups) == pytest.approx(paired_error(first, second))
    assert paired_error(*copies) < 0.6 * paired_error(first, second)
    assert paired_error(first, second, [""] * 6) == pytest.approx(paired_error(first, second))


def test_the_error_of_an_auc_shrinks_with_the_images() -> None:
    generator = torch.Generator().manual_seed(0)
    positive = torch.rand(2000, 2, generator=generator) < 0.5
    first, second = (positive + 2 * torch.randn(2000, 2, generator=generator) for _ in range(2))
    few, many = auc_error(first[:125], second[:125], positive[:125]), auc_error(first, second, positive)
    assert 2.5 < few / many < 6.5  # a root of 16, but for chance
    assert auc_error(first, first, positive) == 0


@pytest.mark.parametrize(
    ("chosen", "best", "reason"),
    [
        ("frozen@0.5", "vanilla", "has the lowest loss of those that keep the inherited statistics."),
        ("probe", "vanilla@0.5", "has the lowest loss of those that keep the inherited statistics."),
        ("frozen", "frozen@0.5", "has the lower loss."),
        ("vanilla@0.5", "vanilla", "has the lower loss."),
    ],
)
def test_the_reason_does_not_claim_a_lower_loss_than_that_of_networks_left_aside(
    chosen: str, best: str, reason: str
) -> None:
    names = ("probe", "frozen", "frozen@0.5", "vanilla", "vanilla@0.5")
    tried = {name: Tried(name, name, "between" if "@" in name else name, validation=90.0) for name in names}
    said = why(Choice(chosen, best, 1.0), tried, "top-1", 48)
    assert said.endswith(f"and {chosen} {reason}")
