"""Learning without Forgetting against the written formula."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from stochnorm.regularizers import LwF, Step
from stochnorm.regularizers.lwf import distillation
from stochnorm.regularizers.regularizer import trained_groups, trained_terms

pytestmark = pytest.mark.usefixtures("device")


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator(torch.get_default_device()).manual_seed(shape[0])
    return torch.randn(shape, generator=generator, dtype=dtype)


def test_golden_value() -> None:
    # p = softmax([1, 0]) = [e, 1] / (e + 1), q = [1/2, 1/2]: sum p log p + log 2
    value = distillation(torch.zeros(3, 2), torch.tensor([[2.0, 0]]).expand(3, 2), temperature=2)
    assert value.item() == pytest.approx(0.7310586 * -0.3132617 + 0.2689414 * -1.3132617 + 0.6931472, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_value_and_gradient_are_those_of_the_formula(temperature: float) -> None:
    logits, reference = draw(6, 11).requires_grad_(), draw(7, 11)[:6]
    value = distillation(logits, reference, temperature)
    p, q = (reference / temperature).softmax(1), (logits / temperature).softmax(1)
    torch.testing.assert_close(value, (p * (p.log() - q.log())).sum(1).mean())
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(gradient, (q - p).detach() / (6 * temperature))  # that of the paper's cross-entropy


def test_gradcheck() -> None:
    reference = draw(5, 4)
    assert torch.autograd.gradcheck(lambda z: distillation(z, reference), draw(5, 4).requires_grad_())


def test_the_same_answers_have_no_penalty_and_the_reference_stays() -> None:
    backbone, head = nn.Sequential(nn.Flatten(), nn.Linear(12, 7)), nn.Linear(7, 5)
    reference = nn.Sequential(copy.deepcopy(backbone), copy.deepcopy(head))
    penalty, images = LwF(head, reference, alpha=3.0), torch.rand(4, 3, 2, 2)
    before = copy.deepcopy(reference.state_dict())
    step = Step(images, torch.tensor([0, 1, 0, 1]), torch.zeros(4, 2), backbone(images))
    assert penalty(step).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        backbone[1].weight += 0.5 * torch.randn_like(backbone[1].weight)
    moved = penalty(step._replace(features=backbone(images)))
    assert moved > 1e-3
    torch.testing.assert_close(moved, 3 * distillation(head(backbone(images)), reference(images)))
    moved.backward()
    assert head.weight.grad is not None
    assert all(torch.equal(value, before[key]) for key, value in reference.state_dict().items())
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_the_head_is_trained_and_kept_and_the_reference_is_neither() -> None:
    penalty = LwF(nn.Linear(4, 3), nn.Linear(4, 3))
    assert [(len(group["params"]), group["lr"]) for group in trained_groups({"lwf": penalty}, 0.1)] == [(2, 0.1)]
    assert set(trained_terms({"lwf": penalty})["terms"].state_dict()) == {"lwf.head.weight", "lwf.head.bias"}
    penalty.requires_grad_(False)
    assert (trained_groups({"lwf": penalty}, 0.1), trained_terms({"lwf": penalty})) == ([], {})


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"one shape \(b, source classes\), got \(2, 3\) and \(2, 4\)"):
        distillation(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        LwF(nn.Linear(2, 2), nn.Linear(2, 2), temperature=0)
    with pytest.raises(ValueError, match="alpha must be at least 0, got -1"):
        LwF(nn.Linear(2, 2), nn.Linear(2, 2), alpha=-1)
