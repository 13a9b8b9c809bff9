from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from stochnorm.nn import convert
from stochnorm.nn.hold import hold_statistics


def network(p: float | None) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    return model if p is None else convert(model, p=p)


@pytest.mark.parametrize("p", [None, 0.0, 0.5, 1.0])
def test_a_second_pass_repeats_the_first_and_updates_nothing(p: float | None) -> None:
    model, x = network(p), torch.randn(4, 3, 8, 8)
    first = model(x)
    buffers = copy.deepcopy(dict(model.named_buffers()))
    generator = torch.random.get_rng_state()
    with hold_statistics(model):
        second = model(x)
    assert torch.equal(first, second)
    assert torch.equal(generator, torch.random.get_rng_state())
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert all(m.momentum == 0.1 for m in model if isinstance(m, nn.BatchNorm2d))


def test_the_second_pass_differentiates_the_same_function_at_other_weights() -> None:
    """As in SAM: mask and moving statistics of the first pass, batch statistics of the second."""
    model, x = network(0.5), torch.randn(4, 3, 8, 8)
    before = [copy.deepcopy(m.state_dict()) for m in (model[1], model[4])]
    model(x)
    masks = [m._last_step[0] for m in (model[1], model[4])]
    with torch.no_grad():
        model[0].weight += 0.1
    with hold_statistics(model):
        output = model(x)

    def branch(
        layer: nn.BatchNorm2d, state: dict[str, torch.Tensor], mask: torch.Tensor, h: torch.Tensor
    ) -> torch.Tensor:
        var, mean = torch.var_mean(h, (0, 2, 3), correction=0)
        mean, var = torch.where(mask, mean, state["running_mean"]), torch.where(mask, var, state["running_var"])
        return (h - mean[:, None, None]) / (var + layer.eps).sqrt()[:, None, None]

    h = branch(model[1], before[0], masks[0], model[0](x)).relu()
    h = branch(model[4], before[1], masks[1], model[3](h))
    torch.testing.assert_close(output, h, rtol=1e-4, atol=1e-5)
    assert any(masks[0]) and not all(masks[0])


def test_without_a_pass_to_repeat_it_is_an_error() -> None:
    model = network(0.5)
    with hold_statistics(model), pytest.raises(RuntimeError, match="run a forward pass in training mode first"):
        model(torch.randn(4, 3, 8, 8))


def test_masks_are_drawn_again_afterwards() -> None:
    model, x = network(0.5), torch.randn(4, 3, 8, 8)
    first = model(x)
    with hold_statistics(model):
        model(x)
    assert not torch.equal(first, model(x))
