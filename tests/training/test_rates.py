"""Learning rates for the host and for the device."""

from __future__ import annotations

import pytest
import torch

from stochnorm.training.rates import Rates


def optimizer(device: torch.device) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.ones(2, device=device))], "lr": lr} for lr in (0.1, 0.2)]
    return torch.optim.SGD(groups, fused=True)


def test_the_optimizer_reads_tensors_that_keep_their_place(device: torch.device) -> None:
    sgd = optimizer(device)
    rates = Rates(sgd, device)
    places = set()
    for factor in (1.0, 1.0, 0.5):
        rates.set(factor)
        with rates:
            inside = [group["lr"] for group in sgd.param_groups]
        places.add(tuple(rate.data_ptr() for rate in inside))
        assert [rate.item() for rate in inside] == pytest.approx([0.1 * factor, 0.2 * factor])
        assert all(rate.device.type == device.type for rate in inside)
        assert [group["lr"] for group in sgd.param_groups] == [0.1 * factor, 0.2 * factor]
    assert len(places) == 1


def test_a_step_takes_the_rate_of_its_tensor(device: torch.device) -> None:
    sgd = optimizer(device)
    rates = Rates(sgd, device)
    for group in sgd.param_groups:
        group["params"][0].grad = torch.ones(2, device=device)
    rates.set(0.5)
    with rates:
        sgd.step()
    assert [group["params"][0][0].item() for group in sgd.param_groups] == pytest.approx([0.95, 0.9])


def test_numbers_stay_numbers_without_a_device() -> None:
    sgd = optimizer(torch.device("cpu"))
    rates = Rates(sgd)
    rates.set(0.1)
    with rates:
        assert [group["lr"] for group in sgd.param_groups] == [0.1 * 0.1, 0.2 * 0.1]
