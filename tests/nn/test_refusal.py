"""Functions that replace every BatchNorm do not replace ours without a word."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm.layers
import torch
from timm.layers.norm_act import BatchNormAct2d, freeze_batch_norm_2d
from torch import nn
from torch.nn.utils import parametrize
from torchvision.models.feature_extraction import create_feature_extractor

from stochnorm.nn import convert, convert_batch_instance, freeze, restore, set_p
from stochnorm.nn.cpu.accelerate import accelerate

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


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
@pytest.mark.parametrize("conversion", [convert, convert_batch_instance])
def test_timms_function_to_freeze_does_not_drop_the_method(
    conversion: Callable[[nn.Module], nn.Module], kind: type[nn.Module]
) -> None:
    model = conversion(nn.Sequential(nn.Conv2d(3, 4, 1), kind(4)))
    before = type(model[1])
    with pytest.raises(TypeError, match=r"call stochnorm\.nn\.freeze\(model, where=\.\.\.\) instead"):
        freeze_batch_norm_2d(model)
    assert type(model[1]) is before
    assert model[1].affine is True
    assert "Frozen" in type(freeze_batch_norm_2d(freeze(restore(model)))[1]).__name__  # what is frozen stays frozen


def test_update_bn_does_not_normalize_by_what_it_has_reset() -> None:
    x, model = torch.randn(8, 3) + 5, convert(nn.Sequential(nn.BatchNorm1d(3)), p=0.5)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for each in (model, averaged):
        with pytest.raises(TypeError, match=r"call stochnorm\.update_statistics\(model, loader\) instead"):
            torch.optim.swa_utils.update_bn([x], each)
    model[0].reset_running_stats()
    assert model[0].running_mean.tolist() == [0.0] * 3
    set_p(model, 1.0)  # then it is BatchNorm
    torch.optim.swa_utils.update_bn([x], model)
    torch.testing.assert_close(model[0].running_mean, x.mean(0))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("conversion", [convert, convert_batch_instance, freeze])
@pytest.mark.parametrize("training", [True, False])
def test_what_knows_layers_by_their_class_says_to_restore_first(
    training: bool, conversion: Callable[[nn.Module], nn.Module]
) -> None:
    model = conversion(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())).train(training)
    quantization = torch.ao.quantization
    fuse = quantization.fuse_modules_qat if training else quantization.fuse_modules
    for function in (torch.jit.script, lambda model: fuse(model, [["0", "1", "2"]])):
        with pytest.raises(TypeError, match=r"call stochnorm\.restore\(model\) first"):
            function(model)
    if not training:
        x = torch.randn(2, 3, 4, 4)
        expected = model(x)
        torch.testing.assert_close(torch.jit.script(restore(model))(x), expected)
        torch.testing.assert_close(fuse(model, [["0", "1", "2"]])(x), expected)


def test_parametrizations_of_a_layer_work() -> None:
    layer = convert(nn.Sequential(nn.BatchNorm1d(3)))[0]
    assert not parametrize.is_parametrized(layer)
    parametrize.register_parametrization(layer, "weight", nn.Softplus())
    assert torch.equal(layer.weight, nn.functional.softplus(layer.parametrizations.weight.original))
    parametrize.remove_parametrizations(layer, "weight")
    assert not hasattr(layer, "parametrizations")


@pytest.mark.parametrize("conversion", [convert, convert_batch_instance, freeze])
@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_fx_records_a_call_of_the_layer(
    training: bool, accelerated: bool, conversion: Callable[[nn.Module], nn.Module]
) -> None:
    model = conversion(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), BatchNormAct2d(4)))
    if accelerated:
        accelerate(model)
    traced, x = torch.fx.symbolic_trace(model.train(training)), torch.randn(2, 3, 4, 4)
    features = create_feature_extractor(model, ["1"])
    state = copy.deepcopy(model.state_dict())
    results = []
    for each in (model, traced):
        model.load_state_dict(state)
        torch.manual_seed(0)
        results.append((each(x), copy.deepcopy(model.state_dict())))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    seen = []
    for function in (lambda x: features(x)["1"], model[:2]):
        model.load_state_dict(state)
        torch.manual_seed(0)
        seen.append(function(x))
    torch.testing.assert_close(*seen, rtol=0, atol=0)
