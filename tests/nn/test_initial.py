"""The moving statistics that fine-tuning starts from."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from stochnorm.nn import convert, freeze, initialize_statistics, update_statistics


def inherited() -> nn.Sequential:
    model = convert(nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)), p=0.5)
    for layer in (model[0], model[2]):
        layer.running_mean.fill_(7.0)
        layer.running_var.fill_(3.0)
        layer.num_batches_tracked.fill_(5)
    return model


def batches() -> list[Tensor]:
    return list(torch.randn(3, 4, 2, 5, 5, generator=torch.Generator().manual_seed(0)) + 2)


def test_pretrained_changes_nothing() -> None:
    model = inherited()
    before = copy.deepcopy(model.state_dict())
    initialize_statistics(model, "pretrained")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_zero_one_forgets_the_statistics_and_nothing_else() -> None:
    model = inherited()
    weight = model[1].weight.clone()
    initialize_statistics(model, "zero_one")
    for layer in (model[0], model[2]):
        assert torch.equal(layer.running_mean, torch.zeros_like(layer.running_mean))
        assert torch.equal(layer.running_var, torch.ones_like(layer.running_var))
        assert layer.num_batches_tracked == 0
        assert layer.p == 0.5
    assert torch.equal(model[1].weight, weight)


def test_target_takes_them_from_the_images() -> None:
    model = inherited()
    reference = update_statistics(copy.deepcopy(model), batches())
    initialize_statistics(model, "target", batches())
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), reference.buffers(), strict=True))
    torch.testing.assert_close(model[0].running_mean, torch.stack(batches()).mean((0, 1, 3, 4)))


def test_frozen_layers_start_there_too() -> None:
    model = freeze(inherited())
    initialize_statistics(model, "zero_one")
    assert model[0].running_mean.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("model", "how", "message"),
    [
        (nn.BatchNorm2d(2), "imagenet", "must be pretrained, zero_one or target, got 'imagenet'"),
        (nn.BatchNorm2d(2), "target", "need batches of training images"),
        (nn.Linear(2, 2), "zero_one", "Linear has no BatchNorm"),
        (nn.Linear(2, 2), "pretrained", "Linear has no BatchNorm"),
    ],
)
def test_what_cannot_be_done_is_an_error(model: nn.Module, how: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initialize_statistics(model, how)  # type: ignore[arg-type]
