"""Weights at the sharpest point nearby."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from stochnorm.nn import ascended, convert

pytestmark = pytest.mark.usefixtures("device")


def network(p: float | None = None) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))
    return model if p is None else convert(model, p=p)


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def gradients(model: nn.Module) -> list[Tensor]:
    found = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None for gradient in found)
    return [gradient for gradient in found if gradient is not None]


def test_the_gradient_is_that_at_the_sharpest_point_by_hand() -> None:
    """Equation 2 of the paper, with another network at w + rho g / |g|."""
    model, x, rho = network(), torch.randn(6, 3), 0.3
    loss(model, x).backward()  # type: ignore[no-untyped-call]
    g = [gradient.clone() for gradient in gradients(model)]
    other = network()
    with torch.no_grad():
        length = sum(gradient.double().square().sum() for gradient in g) ** 0.5
        for parameter, gradient in zip(other.parameters(), g, strict=True):
            parameter += (rho * gradient.double() / length).float()
    loss(other, x).backward()  # type: ignore[no-untyped-call]
    with ascended(model, rho=rho):
        moved = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        loss(model, x).backward()  # type: ignore[no-untyped-call]
    kept = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    torch.testing.assert_close((moved - kept).norm(), torch.tensor(rho))
    for ours, theirs, plain in zip(gradients(model), gradients(other), g, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not torch.allclose(ours, plain, rtol=1e-2)


@pytest.mark.parametrize("p", [None, 0.5])
def test_weights_statistics_and_masks_are_as_before(p: float | None, random_state: Callable[[], Tensor]) -> None:
    """Bit for bit; the second pass has no mask, no statistics of its own, and draws no random number."""
    model, x = network(p), torch.randn(6, 3)
    loss(model, x).backward()  # type: ignore[no-untyped-call]
    before, state = copy.deepcopy(model.state_dict()), random_state()
    masks = []
    if p is not None:
        model[1].register_forward_hook(lambda layer, *_: masks.append(layer._last_step[0].clone()))  # type: ignore[operator]
        masks.append(model[1]._last_step[0].clone())
    with ascended(model, rho=0.3):
        loss(model, x).backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(state, random_state())
    assert len(masks) == (0 if p is None else 2)
    assert all(torch.equal(first, second) for first, second in pairwise(masks))


def test_earlier_gradients_are_added_to() -> None:
    model, x = network(), torch.randn(6, 3)
    loss(model, x).backward()  # type: ignore[no-untyped-call]
    first = [gradient.clone() for gradient in gradients(model)]
    with ascended(model, rho=0.0, before=[torch.ones_like(gradient) for gradient in first]):
        loss(model, x).backward()  # type: ignore[no-untyped-call]
    for gradient, alone in zip(gradients(model), first, strict=True):
        torch.testing.assert_close(gradient, alone + 1)


def test_frozen_parameters_and_an_error_leave_the_weights_where_they_are() -> None:
    model, x = network(), torch.randn(6, 3)
    model[0].requires_grad_(False)  # type: ignore[union-attr]
    loss(model, x).backward()  # type: ignore[no-untyped-call]
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="stop"), ascended(model, rho=0.3):
        assert torch.equal(model[0].weight, before["0.weight"])  # type: ignore[union-attr, arg-type]
        assert not torch.equal(model[3].weight, before["3.weight"])  # type: ignore[union-attr, arg-type]
        raise RuntimeError("stop")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="rho must be at least 0, got -1"), ascended(model, rho=-1):
        pass


def test_weights_that_autocast_remembers_are_forgotten(device: torch.device) -> None:
    model, x = nn.Linear(4, 4, bias=False), torch.randn(8, 4)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        first = model(x)
        first.float().square().sum().backward()
        with ascended(model, rho=3.0):
            second = model(x)
        third = model(x)
    assert not torch.equal(first, second)
    assert torch.equal(first, third)
