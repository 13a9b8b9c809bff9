"""The moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from stochnorm.training.average import Average


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def step(model: nn.Module) -> None:
    model(torch.randn(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_weights_and_moving_statistics_follow_the_formula() -> None:
    model = network()
    average = Average(model, 0.5)
    expected = {key: value.double().clone() for key, value in model.state_dict().items()}
    for number in range(12):
        step(model)
        average.prepare(number)
        average.update()
        decay = min(0.5, (1 + number) / (10 + number))
        for key, value in model.state_dict().items():
            expected[key] = decay * expected[key] + (1 - decay) * value.double()
    assert set(average.state_dict()) == {key for key in expected if key != "1.num_batches_tracked"}
    for key, value in average.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-6)
    assert not torch.equal(average.state_dict()["1.running_var"], model[1].running_var)


def test_they_are_lent_to_the_network_and_taken_back() -> None:
    model = network()
    average = Average(model, 0.9)
    step(model)
    average.prepare(3)
    average.update()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    places = [value.data_ptr() for value in model.state_dict().values()]
    with average.applied():
        inside = {key: value.clone() for key, value in model.state_dict().items()}
    assert all(torch.equal(inside[key], value) for key, value in average.state_dict().items())
    assert not torch.equal(inside["0.weight"], before["0.weight"])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [value.data_ptr() for value in model.state_dict().values()] == places
