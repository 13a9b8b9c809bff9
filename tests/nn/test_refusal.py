"""Functions that replace every BatchNorm do not replace ours without a word."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm.layers
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from stochnorm.nn import convert, convert_batch_instance, freeze, restore

CONVERSIONS = {
    "StochNorm": (convert, r"stochnorm\.convert\(model, sync=True\)"),
    "frozen": (lambda model: freeze(model, what="statistics"), "call stochnorm.nn.freeze after it"),
    "Batch-Instance": (convert_batch_instance, "it has no synchronized form"),
}


class Strategy:
    """What Lightning's plugin for `sync_batchnorm=True` does."""

    @staticmethod
    def apply(model: nn.Module) -> nn.Module:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)


@pytest.mark.parametrize(
    "function",
    [nn.SyncBatchNorm.convert_sync_batchnorm, timm.layers.convert_sync_batchnorm, Strategy.apply],
    ids=["torch", "timm", "Lightning"],
)
@pytest.mark.parametrize(("conversion", "remedy"), CONVERSIONS.values(), ids=CONVERSIONS.keys())
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_a_converted_layer_refuses_to_be_replaced(
    kind: type[nn.Module],
    conversion: Callable[[nn.Module], nn.Module],
    remedy: str,
    function: Callable[[nn.Module], nn.Module],
) -> None:
    model = conversion(nn.Sequential(nn.Conv2d(3, 4, 1), kind(4)))
    before = type(model[1])
    with pytest.raises(TypeError, match=remedy):
        function(model)
    assert type(model[1]) is before
    if before.__name__.startswith("BatchInstance"):
        model[1].rho.data.fill_(1)
    assert "SyncBatchNorm" in type(function(restore(model))[1]).__name__


@pytest.mark.parametrize("conversion", [conversion for conversion, _ in CONVERSIONS.values()])
def test_everyone_else_finds_no_such_attribute(conversion: Callable[[nn.Module], nn.Module]) -> None:
    layer = conversion(nn.Sequential(nn.BatchNorm2d(4)))[0]
    assert not hasattr(layer, "qconfig")
    layer.qconfig = None  # quantization marks layers with it
    assert copy.deepcopy(layer).qconfig is None
    assert layer.state_dict().keys() == nn.BatchNorm2d(4).state_dict().keys() | (
        {"rho"} if hasattr(layer, "rho") else set()
    )
    assert torch.equal(layer.eval()(torch.ones(2, 4, 2, 2)), nn.BatchNorm2d(4).eval()(torch.ones(2, 4, 2, 2)))
