"""One architecture of each of twelve families: convert, train one step with the method active, restore."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from stochnorm.nn import convert, restore
from stochnorm.nn.select import normalization_layers
from stochnorm.nn.stochastic import _StochNorm

FAMILIES = {
    "ResNet": "resnet18",
    "CSPNet": "cs3darknet_focus_s",
    "DenseNet": "densenet121",
    "Inception": "inception_next_atto",
    "EfficientNet": "tf_efficientnet_lite0",
    "MobileNet": "mobilenetv3_small_050",
    "RegNet": "regnetx_002",
    "GhostNet": "ghostnet_050",
    "RepVGG": "repvgg_a0",
    "DLA": "dla46_c",
    "HRNet": "hrnet_w18_small",
    "Res2Net": "res2net50_48w_2s",
}


@pytest.mark.parametrize("name", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_family_converts_trains_and_restores(name: str, device: torch.device) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).to(memory_format=torch.channels_last)
    kinds = [type(layer) for layer in normalization_layers(model)]
    images = torch.randn(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)

    convert(model, p=0.5)
    layers = [layer for layer in normalization_layers(model) if isinstance(layer, _StochNorm)]
    assert len(layers) == len(kinds)
    means = [copy.deepcopy(layer.running_mean) for layer in layers]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = nn.functional.cross_entropy(model(images), torch.arange(4))
    loss.backward()
    optimizer.step()

    masks = torch.cat([layer._last_step[0] for layer in layers if layer._last_step is not None])
    assert 0.4 < masks.double().mean() < 0.6
    assert not any(torch.equal(layer.running_mean, mean) for layer, mean in zip(layers, means, strict=True))
    assert loss.isfinite()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert {tensor.device.type for tensor in (masks, *gradients)} == {device.type}

    output = model.eval()(images)
    restore(model)
    assert [type(layer) for layer in normalization_layers(model)] == kinds
    assert torch.equal(model(images), output)
