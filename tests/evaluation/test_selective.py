"""Thresholds below which answers are withheld, and what they promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stochnorm.evaluation.selective import (
    CONFIDENCE,
    risk_coverage,
    select_by_coverage,
    select_by_error,
    temperature_of,
)


def draw(images: int, seed: int, sharpness: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits of two classes that are calibrated at a temperature of `sharpness`."""
    generator = torch.Generator().manual_seed(seed)
    margin = 3 * torch.randn(images, generator=generator, dtype=torch.double)
    targets = (torch.rand(images, generator=generator, dtype=torch.double) < margin.sigmoid()).long()
    return sharpness * torch.stack([torch.zeros_like(margin), margin], dim=1), targets


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(sharpness: float) -> None:
    logits, targets = draw(20_000, seed=0, sharpness=sharpness)
    assert temperature_of(logits, targets) == pytest.approx(sharpness, rel=0.05)


def test_errors_are_counted_from_the_surest_image_on() -> None:
    coverage, error = risk_coverage(torch.tensor([0.2, 0.9, 0.5, 0.8]), torch.tensor([True, True, False, True]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    torch.testing.assert_close(error, torch.tensor([0, 0, 1 / 3, 1 / 4], dtype=torch.double))


@pytest.mark.parametrize("coverage", [0.1, 0.5, 1.0])
def test_a_share_of_the_images_is_answered(coverage: float) -> None:
    logits, targets = draw(200, seed=1)
    found = select_by_coverage(logits, targets, coverage)
    probabilities = (logits / found.temperature).softmax(1).max(1).values
    assert found.coverage == coverage
    assert (probabilities >= found.threshold).double().mean() == coverage


def test_images_that_are_as_sure_are_answered_together() -> None:
    logits, targets = torch.tensor([[2.0, 0.0]] * 10), torch.tensor([0] * 9 + [1])
    found = select_by_coverage(logits, targets, 0.5)
    assert (found.coverage, found.error) == (1.0, 0.1)


def test_the_promise_of_an_error_is_kept() -> None:
    """On other images of the same kind the error is above the promised one in a tenth of the cases at most."""
    others, truth = draw(100_000, seed=99)
    broken = 0
    for seed in range(200):
        found = select_by_error(*draw(150, seed=seed), 0.1)
        probabilities, answers = (others / found.temperature).softmax(1).max(1)
        answered = probabilities >= found.threshold
        broken += bool((answers != truth)[answered].double().mean() > found.bound)
    assert broken <= (1 - CONFIDENCE) * 200


def test_few_images_promise_what_they_can() -> None:
    logits, targets = torch.tensor([[9.0, 0.0]] * 8), torch.zeros(8, dtype=torch.long)
    found = select_by_error(logits, targets, 0.01)
    assert found.error == 0
    assert found.bound == pytest.approx(1 - (0.1 / 3) ** (1 / 8))  # eight right answers, three tests
    assert math.isclose(found.coverage, 1.0)


@pytest.mark.parametrize("value", [0.0, 1.5, float("nan")])
def test_shares_outside_are_refused(value: float) -> None:
    logits, targets = draw(5, seed=0)
    with pytest.raises(ValueError, match="coverage must be in"):
        select_by_coverage(logits, targets, value)
    with pytest.raises(ValueError, match="error must be in"):
        select_by_error(logits, targets, value)
    with pytest.raises(ValueError, match="needs validation images"):
        select_by_coverage(logits[:0], targets[:0], 0.5)
