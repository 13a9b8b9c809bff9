"""Tools that copy, average or replace layers keep the method."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import timm
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel

import stochnorm
from stochnorm.nn import StochNorm2d


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    return stochnorm.convert(nn.Sequential(*layers), p=0.3)


def test_timm_makes_networks_with_the_layer() -> None:
    model = timm.create_model("resnet18", norm_layer=partial(StochNorm2d, p=0.25))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert all(isinstance(norm, StochNorm2d) and norm.p == 0.25 for norm in norms)
    with pytest.raises(AssertionError, match="No equivalent norm_act layer"):  # docs/loops.md: convert it afterwards
        timm.create_model("mobilenetv2_100", norm_layer=StochNorm2d)


@pytest.mark.parametrize("kind", ["AveragedModel", "ModelEmaV3"])
def test_averages_are_of_weights_and_get_statistics_without_masks(kind: str) -> None:
    model = network()
    average = AveragedModel(model) if kind == "AveragedModel" else ModelEmaV3(model, decay=0.5)
    if kind == "AveragedModel":
        average.update_parameters(model)  # the first is a copy
    first = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    average.update_parameters(model) if kind == "AveragedModel" else average.update(model)
    torch.testing.assert_close(average.module[0].weight, first + 0.5)
    assert isinstance(average.module[1], StochNorm2d)
    assert average.module[1].p == 0.3
    images = torch.randn(8, 3, 6, 6)
    stochnorm.update_statistics(average.module, [images[:3], images[3:]])
    values = average.module[0](images).detach()
    torch.testing.assert_close(average.module[1].running_mean, values.mean((0, 2, 3)))


@pytest.mark.filterwarnings("ignore")  # these functions of PyTorch are deprecated
def test_quantization_aware_training_keeps_the_layer_until_it_is_restored() -> None:
    from torch.ao import quantization

    model = network().train()
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    prepared = quantization.prepare_qat(copy.deepcopy(model))
    assert isinstance(prepared[1], StochNorm2d)
    assert type(prepared[0]) is not nn.Conv2d
    plain = quantization.prepare_qat(stochnorm.restore(copy.deepcopy(model)))
    images = torch.randn(4, 3, 6, 6)
    plain(images)
    quantized = quantization.convert(plain.eval())
    assert type(quantized[1]).__name__ == "BatchNorm2d"
    assert "quantized" in type(quantized[1]).__module__
