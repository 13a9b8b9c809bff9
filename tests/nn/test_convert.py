"""convert and restore: nothing is lost, nothing is silent."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import Conv2dNormActivation

from stochnorm import StochNorm1d, StochNorm2d, StochNorm3d, convert, restore
from stochnorm.nn.timm_layers import StochNormAct2d

pytestmark = pytest.mark.usefixtures("device")


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(6), nn.BatchNorm1d(6))


@pytest.fixture
def net() -> nn.Sequential:
    model = small_net()
    model(torch.randn(2, 3, 5, 5))
    return model


def test_every_kind_has_its_counterpart() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.BatchNorm3d(3), BatchNormAct2d(3))
    kinds = [type(m) for m in net]
    convert(net)
    assert [type(m) for m in net] == [StochNorm1d, StochNorm2d, StochNorm3d, StochNormAct2d]
    restore(net)
    assert [type(m) for m in net] == kinds


def test_a_single_layer_converts() -> None:
    layer = nn.BatchNorm2d(3)
    assert convert(layer, p=0.25) is layer
    assert isinstance(layer, StochNorm2d)
    assert layer.p == 0.25


def test_everything_survives(net: nn.Sequential) -> None:
    net[1].weight.requires_grad_(False)
    net[4].eval()
    net.to(torch.float64)
    calls: list[int] = []
    net[1].register_forward_hook(lambda *_: calls.append(1))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    tensors = {name: id(t) for name, t in (*net.named_parameters(), *net.named_buffers())}
    state = {key: value.clone() for key, value in net.state_dict().items()}
    attributes = (net[1].momentum, net[1].eps, net[1].num_features)

    convert(net, p=0.5)

    assert {name: id(t) for name, t in (*net.named_parameters(), *net.named_buffers())} == tensors
    assert net.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert (net[1].momentum, net[1].eps, net[1].num_features) == attributes
    assert not net[1].weight.requires_grad
    assert net[1].training
    assert not net[4].training
    net(torch.randn(4, 3, 5, 5, dtype=torch.float64)).square().sum().backward()
    assert calls == [1]
    before = net[1].bias.clone()
    optimizer.step()
    assert not torch.equal(net[1].bias, before)


def test_a_shared_layer_stays_shared() -> None:
    norm = nn.BatchNorm2d(3)
    net = convert(nn.Sequential(norm, nn.Conv2d(3, 3, 1), norm))
    assert net[0] is net[2]
    assert isinstance(net[0], StochNorm2d)


def test_a_copy_is_independent(net: nn.Sequential) -> None:
    reference = copy.deepcopy(net)
    before = reference[1].running_mean.clone()
    convert(net)(torch.randn(4, 3, 5, 5) + 3)
    assert torch.equal(reference[1].running_mean, before)
    assert type(reference[1]) is nn.BatchNorm2d


def test_the_second_call_changes_p(net: nn.Sequential) -> None:
    convert(net, p=0.5)
    convert(net, p=0.9, momentum=0.01)
    assert [m.p for m in net if isinstance(m, (StochNorm1d, StochNorm2d))] == [0.9, 0.9]
    assert net[1].momentum == 0.01


def test_where_picks_by_name_and_module(net: nn.Sequential) -> None:
    convert(net, where=lambda name, module: name == "4" and module.num_features == 6)
    assert type(net[1]) is nn.BatchNorm2d
    assert type(net[4]) is StochNorm1d


def test_restore_is_bit_identical_in_eval() -> None:
    model = torchvision.models.resnet18(num_classes=3)
    convert(model)
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    x = torch.randn(2, 3, 32, 32)
    stochastic = model.eval()(x)
    restore(model)
    assert not any("Stoch" in type(m).__name__ for m in model.modules())
    assert not any("_p" in m.__dict__ or "_last_step" in m.__dict__ for m in model.modules())
    assert torch.equal(model(x), stochastic)


def test_the_activation_of_timms_layer_runs() -> None:
    layer = BatchNormAct2d(64, act_layer=nn.ReLU)
    convert(layer)
    x = torch.randn(4, 64, 3, 3)
    y = layer(x)
    assert y.min() == 0
    assert not torch.equal(y, layer(x))  # another mask


def test_frozen_and_untracked_layers_are_left_alone() -> None:
    frozen = torchvision.ops.FrozenBatchNorm2d(3)
    untracked = nn.BatchNorm2d(3, track_running_stats=False)
    net = convert(nn.Sequential(frozen, untracked, nn.BatchNorm2d(3)))
    assert [type(m) for m in net] == [torchvision.ops.FrozenBatchNorm2d, nn.BatchNorm2d, StochNorm2d]


class Custom(nn.BatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + 1


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (nn.Linear(2, 2), ValueError, "nothing to convert in Linear: it has no normalization layer"),
        (nn.Sequential(nn.LayerNorm(3)), ValueError, "its normalization is LayerNorm, without"),
        (Conv2dNormActivation(3, 3, norm_layer=None), ValueError, "it has no normalization layer"),
        (nn.Sequential(nn.SyncBatchNorm(3)), ValueError, "its normalization is SyncBatchNorm"),
        (nn.Sequential(nn.LazyBatchNorm2d()), ValueError, "lazy layer LazyBatchNorm2d at '0'.*forward pass first"),
        (nn.Sequential(Custom(3)), TypeError, "Custom at '0'.*where=lambda"),
        (torch.compile(nn.BatchNorm2d(3)), TypeError, "before torch.compile"),
    ],
)
def test_what_cannot_be_converted_is_an_error(model: nn.Module, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        convert(model)


def test_a_ddp_wrapped_model_is_an_error(tmp_path: object) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(small_model := nn.Sequential(nn.BatchNorm2d(3)))
        with pytest.raises(TypeError, match="convert the model before wrapping it"):
            convert(wrapped)
        assert type(small_model[0]) is nn.BatchNorm2d
        wrapped = nn.parallel.DistributedDataParallel(convert(small_model))
        wrapped(torch.randn(4, 3, 2, 2)).sum().backward()
        assert small_model[0].weight.grad is not None
    finally:
        torch.distributed.destroy_process_group()


def test_wrong_arguments_change_nothing(net: nn.Sequential) -> None:
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got 2"):
        convert(net, p=2)
    with pytest.raises(ValueError, match=r"where\(\) picked none"):
        convert(net, where=lambda name, module: False)
    with pytest.raises(ValueError, match="no StochNorm, frozen or Batch-Instance layer"):
        restore(net)
    with pytest.raises(TypeError, match="Custom"):
        convert(nn.Sequential(layer := nn.BatchNorm2d(3), Custom(3)))
    assert not any(isinstance(m, (StochNorm1d, StochNorm2d)) for m in (layer, *net.modules()))


def test_converted_models_train_with_the_method_active() -> None:
    model = convert(torchvision.models.resnet18(num_classes=3), p=0.0)
    x = torch.randn(4, 3, 32, 32)
    means = [m.running_mean.clone() for m in model.modules() if isinstance(m, _BatchNorm)]
    reference = copy.deepcopy(model).eval()(x)
    torch.testing.assert_close(model(x), reference)  # p = 0 in training normalizes as inference does ...
    after = [m.running_mean for m in model.modules() if isinstance(m, _BatchNorm)]
    assert all(not torch.equal(a, b) for a, b in zip(means, after, strict=True))  # ... and still tracks


def test_a_feature_extractor_of_a_plain_model_converts() -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    model = create_feature_extractor(torchvision.models.resnet18(num_classes=3), ["layer4"])
    convert(model)
    x = torch.randn(4, 3, 64, 64)
    assert not torch.equal(model(x)["layer4"], model(x)["layer4"])


def test_wrong_arguments_are_named() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4))
    with pytest.raises(TypeError, match=r"got 'layer1'; stochnorm.nn.name_matches\('layer1'\) makes one"):
        convert(model, where="layer1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got 7"):
        convert(model, momentum=7)
    assert type(model[0]) is nn.BatchNorm1d
