"""Hooks that keep what layers put out."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from stochnorm.nn.hooks.taps import InputTap, OutputTap

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_inputs_and_outputs_are_of_the_last_forward_pass_with_their_graph(model: nn.Module) -> None:
    outputs, inputs = OutputTap(model, ["0", "1"]), InputTap(model, ["2"])
    model(torch.zeros(5, 3))
    logits = model(torch.ones(2, 3))
    assert [v.shape for v in (outputs.values["0"], outputs.values["1"], inputs.values["2"])] == [(2, 4)] * 3
    assert inputs.values["2"] is outputs.values["1"]
    assert torch.autograd.grad(logits.sum(), outputs.values["1"])[0].tolist() == [model[2].weight.sum(0).tolist()] * 2


def test_a_copy_of_the_model_does_not_write_into_the_tap(model: nn.Module) -> None:
    tap = OutputTap(model, ["0"])
    model(torch.ones(2, 3))
    before = tap.values["0"]
    copy.deepcopy(model)(torch.ones(7, 3))
    assert tap.values["0"] is before


def test_a_closed_tap_keeps_nothing(model: nn.Module) -> None:
    tap = OutputTap(model, ["0"])
    model(torch.ones(2, 3))
    tap.close()
    model(torch.ones(2, 3))
    assert not tap.values
    assert not model[0]._forward_hooks


def test_a_with_block_leaves_the_values_and_no_hooks(model: nn.Module) -> None:
    with OutputTap(model, ["0"]) as tap:
        model(torch.ones(2, 3))
    model(torch.ones(7, 3))
    assert tap.values["0"].shape == (2, 4)


def test_an_unknown_name_is_an_error_and_leaves_no_hook(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"Sequential has no module 'layer5'; see model.named_modules"):
        OutputTap(model, ["0", "layer5"])
    assert not model[0]._forward_hooks


def test_a_model_with_a_tap_can_be_pickled(model: nn.Module) -> None:
    with OutputTap(model, ["0"]) as tap:
        again = pickle.loads(pickle.dumps(model))  # noqa: S301 our own
        again(torch.ones(2, 3))
        assert not tap.values
