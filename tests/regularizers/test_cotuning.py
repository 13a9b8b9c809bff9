"""Co-Tuning against the written formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stochnorm.regularizers import CoTuning, Step
from stochnorm.regularizers.cotuning import (
    _logistic_regression,
    direct_relationship,
    relationship_loss,
    reverse_relationship,
)

pytestmark = pytest.mark.usefixtures("device")


def draw(*shape: int) -> Tensor:
    generator = torch.Generator(torch.get_default_device()).manual_seed(shape[0])
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def world(images: int = 4000) -> tuple[Tensor, Tensor, Tensor]:
    """Images of 5 source classes, known for certain, whose new class has a known probability given the source's."""
    generator = torch.Generator().manual_seed(0)
    given_source = torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8]])
    source = torch.randint(5, (images,), generator=generator)
    labels = given_source[source].multinomial(1, generator=generator)[:, 0]
    joint = given_source.T / 5
    expected = (joint / joint.sum(1, keepdim=True)).double()
    device = torch.get_default_device()
    return nn.functional.one_hot(source, 5).double().to(device), labels.to(device), expected.to(device)


@pytest.mark.parametrize("learn", [direct_relationship, reverse_relationship])
def test_a_known_relationship_is_found(learn: object) -> None:
    answers, labels, expected = world()
    found = learn(answers, labels, 3)  # type: ignore[operator]
    torch.testing.assert_close(found.sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_the_direct_relationship_is_the_mean_answer_of_a_class() -> None:
    answers, labels = draw(20, 6).softmax(1), torch.arange(20) % 3
    expected = torch.stack([answers[labels == c].mean(0) for c in range(3)])
    torch.testing.assert_close(direct_relationship(answers, labels, 3), expected)


def test_the_logistic_regression_ends_where_the_gradient_is_zero() -> None:
    inputs, labels, strength = draw(40, 6).softmax(1), torch.arange(40) % 3, 1e-3
    weight = _logistic_regression(inputs, labels, 3, strength).requires_grad_()
    loss = nn.functional.cross_entropy(inputs @ weight.T, labels) + strength / 2 * weight.square().sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("images", [2, 3])
def test_the_reverse_relationship_of_few_images_is_a_distribution(images: int) -> None:
    answers, labels = draw(2 * images, 6).softmax(1), torch.arange(2 * images) % 2
    found = reverse_relationship(answers, labels, 2)
    torch.testing.assert_close(found.sum(1), torch.ones(2, dtype=torch.float64))
    assert (found >= 0).all()


def test_value_and_gradient_are_those_of_the_formula() -> None:
    logits, relationship = draw(6, 5).requires_grad_(), draw(3, 5).softmax(1)
    targets = torch.tensor([0, 2, 1, 1, 0, 2])
    value = relationship_loss(logits, relationship, targets)
    q = logits.softmax(1)
    torch.testing.assert_close(value, -(relationship[targets] * q.log()).sum() / 6)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(gradient, (q - relationship[targets]).detach() / 6)
    mixed = nn.functional.one_hot(targets, 3).double()
    torch.testing.assert_close(relationship_loss(logits, relationship, mixed), value)


def test_gradcheck() -> None:
    relationship, targets = draw(3, 5).softmax(1), torch.tensor([0, 2, 1, 1])
    assert torch.autograd.gradcheck(lambda z: relationship_loss(z, relationship, targets), draw(4, 5).requires_grad_())


def test_the_loss_trains_the_features_and_the_source_head() -> None:
    head, relationship = nn.Linear(7, 5), draw(3, 5).softmax(1).float()
    features, targets = draw(4, 7).float().requires_grad_(), torch.tensor([0, 2, 1, 1])
    value = CoTuning(head, relationship, strength=2.5)(
        Step(torch.empty(4, 3, 2, 2), targets, torch.zeros(4, 3), features)
    )
    torch.testing.assert_close(value, 2.5 * relationship_loss(head(features), relationship, targets))
    value.backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert head.weight.grad is not None


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="class 1 has none"):
        direct_relationship(torch.ones(2, 1), torch.tensor([0, 2]), 3)
    with pytest.raises(ValueError, match=r"a distribution over the source classes in each row, got shape \(2, 4\)"):
        CoTuning(nn.Linear(3, 4), torch.ones(2, 4))
    with pytest.raises(ValueError, match="strength must be at least 0, got -1"):
        CoTuning(nn.Linear(3, 4), torch.full((2, 4), 0.25), strength=-1)
