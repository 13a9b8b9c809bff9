"""Folding keeps what a network computes in evaluation, and folds nothing that something else looks at."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from stochnorm.nn.cpu.accelerate import accelerate
from stochnorm.nn.fold import fold_batch_norm
from stochnorm.nn.freeze import freeze

pytestmark = pytest.mark.usefixtures("device")


def seasoned(model: nn.Module) -> nn.Module:
    """With statistics and affine parameters that are not those of a new layer; in evaluation."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            for tensor in (module.running_var, module.weight, module.bias, module.running_mean):
                tensor.detach().copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def outputs(model: nn.Module, size: int = 64) -> Tensor:
    images = torch.rand(2, 3, size, size, generator=torch.Generator(torch.get_default_device()).manual_seed(1))
    with torch.no_grad():
        return model(images)


@pytest.mark.parametrize(
    ("build", "size", "layers"),
    [
        (torchvision.models.resnet18, 64, 20),
        (torchvision.models.vgg11_bn, 64, 8),
        (lambda: torchvision.models.inception_v3(init_weights=False), 96, 94),
        (lambda: timm.create_model("tf_efficientnet_lite0"), 64, 49),
    ],
    ids=["resnet18", "vgg11_bn", "inception_v3", "tf_efficientnet_lite0"],
)
def test_outputs_are_those_of_before_to_rounding(build: Callable[[], nn.Module], size: int, layers: int) -> None:
    torch.manual_seed(0)
    model = seasoned(build())
    before = outputs(model, size)
    assert fold_batch_norm(model) == layers
    assert not any(isinstance(module, nn.BatchNorm2d) for name, module in model.named_modules() if "Aux" not in name)
    torch.testing.assert_close(outputs(model, size), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


class Standardized(nn.Conv2d):
    """A convolution like timm's StdConv2d: a scaled weight computes the same."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight / self.weight.std((1, 2, 3), keepdim=True), self.bias)


class Branches(nn.Module):
    """BatchNorm after: a convolution that an addition takes too, one called twice, a function, a derived class."""

    def __init__(self) -> None:
        super().__init__()
        self.shared_map, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.twice, self.norm_twice = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.before_relu, self.after_relu = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.standardized, self.after_standardized = Standardized(4, 4, 3), nn.BatchNorm2d(4)
        self.untracked_map, self.untracked = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared_map(x)
        x = x + self.norm(x)
        x = self.norm_twice(self.twice(self.norm_twice(self.twice(x))))
        x = self.after_relu(self.before_relu(x).relu())
        x = self.after_standardized(self.standardized(x))
        return self.untracked(self.untracked_map(x))


def test_what_cannot_be_folded_stays() -> None:
    model = seasoned(Branches())
    before, state = outputs(model), copy.deepcopy(model.state_dict())
    assert fold_batch_norm(model) == 0
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(outputs(model), before)


def test_accelerated_layers_fold_as_what_they_accelerate() -> None:
    model = seasoned(timm.create_model("tf_efficientnet_lite0"))
    before = outputs(model)
    accelerate(model)
    assert fold_batch_norm(model) == 49
    torch.testing.assert_close(outputs(model), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def three() -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU()]
    return nn.Sequential(*layers)


def test_maps_that_are_looked_at_stay() -> None:
    model = seasoned(three())
    model[3].register_forward_hook(lambda *_: None)
    assert fold_batch_norm(model, keep=["0", "7"]) == 1  # a folded layer keeps its output
    assert [type(model[i]) for i in (1, 4, 7)] == [nn.BatchNorm2d, nn.BatchNorm2d, nn.Identity]
    carrying = seasoned(timm.create_model("tf_efficientnet_lite0"))
    assert fold_batch_norm(carrying, keep=["bn1.act"]) == 48
    assert carrying.get_submodule("bn1.act") is not None


def test_a_block_that_ends_in_a_convolution_keeps_its_output() -> None:
    """The case of timm's deep stems, whose BatchNorm comes after the block."""
    model = seasoned(nn.Sequential(nn.Sequential(*three()[:4]), nn.BatchNorm2d(3), nn.ReLU()))
    images = torch.rand(2, 3, 9, 9)
    before = model[0](images)
    assert fold_batch_norm(model, keep=["0"]) == 1  # the pair inside
    torch.testing.assert_close(model[0](images), before, rtol=1e-4, atol=1e-5)
    assert fold_batch_norm(model, keep=["2"]) == 1


def test_other_layers_than_batch_norm_stay() -> None:
    model = seasoned(three())
    freeze(model, where=lambda name, _: name == "4")
    assert fold_batch_norm(model) == 2
    assert isinstance(model[4], nn.BatchNorm2d)


class Dynamic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = three()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) if float(x.sum()) > 0 else x


def test_a_network_that_cannot_be_followed_is_left_as_it_is() -> None:
    model = seasoned(Dynamic())
    assert fold_batch_norm(model) == 0
    assert isinstance(model.layers[1], nn.BatchNorm2d)
