"""The ends of stages, for backbones of both libraries."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from stochnorm.nn.hooks.stages import check_layers, stage_names
from stochnorm.nn.hooks.taps import OutputTap

pytestmark = pytest.mark.usefixtures("device")

KNOWN = {
    "timm/resnet50": ["layer1", "layer2", "layer3", "layer4"],
    "torchvision/resnet50": ["layer1", "layer2", "layer3", "layer4"],
    "timm/vgg16_bn": ["features.12", "features.22", "features.32", "features.42"],
    "torchvision/vgg16_bn": ["features.12", "features.22", "features.32", "features.42"],
    "timm/inception_v3": ["Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"],
    "torchvision/inception_v3": ["Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"],
    "timm/tf_efficientnet_lite0": ["blocks.1", "blocks.2", "blocks.4", "bn2"],
    "timm/mobilenetv2_100": ["blocks.1", "blocks.2", "blocks.4", "bn2"],
    "timm/densenet121": ["features.denseblock1", "features.denseblock2", "features.denseblock3", "features.norm5"],
    "torchvision/densenet121": [
        "features.denseblock1",
        "features.denseblock2",
        "features.denseblock3",
        "features.norm5",
    ],
    "timm/convnext_atto": ["stages.0", "stages.1", "stages.2", "stages.3"],
    "torchvision/convnext_tiny": ["features.1", "features.3", "features.5", "features.7"],
    "timm/regnety_004": ["s1", "s2", "s3", "s4"],
    "torchvision/googlenet": ["conv3", "inception3b", "inception4e", "inception5b"],
}


@pytest.mark.parametrize("backbone", KNOWN)
def test_stages_of_known_backbones(backbone: str) -> None:
    library, name = backbone.split("/")
    with torch.device("meta"):  # shapes say it all
        if library == "timm":
            model = timm.create_model(name)
        else:
            options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
            model = torchvision.models.get_model(name, **options)
        size = 299 if "inception" in name else 224
        assert stage_names(model, image_size=size) == KNOWN[backbone]


def test_stages_halve_the_resolution_and_the_model_is_left_as_it_was() -> None:
    model = timm.create_model("resnet18")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    names = stage_names(model, image_size=64)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with OutputTap(model, names) as tap:
        model(torch.zeros(2, 3, 64, 64))
    assert [tuple(tap.values[n].shape) for n in names] == [
        (2, 64, 16, 16),
        (2, 128, 8, 8),
        (2, 256, 4, 4),
        (2, 512, 2, 2),
    ]


def test_count_takes_the_last_stages() -> None:
    with torch.device("meta"), torch.inference_mode():
        assert stage_names(timm.create_model("resnet18"), count=2) == ["layer3", "layer4"]


class Odd(nn.Module):
    """A shared activation, an identity at the end, a squeeze-and-excitation gate, and a convolutional head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(4, 8, 3, 2, 1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 8, 1)
        self.same = nn.Identity()
        self.head = nn.Conv2d(8, 2, 1)
        self.after = nn.Softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.second(x))
        x = self.last(x * self.gate(x.mean((2, 3), keepdim=True)))
        return self.after(self.head(self.same(x))).mean((2, 3))


def test_shared_layers_identities_and_the_head_end_no_stage() -> None:
    model = Odd()
    assert stage_names(model, image_size=16, head=[model.head]) == ["first", "last"]
    assert stage_names(model, image_size=16) == ["first", "after"]


def test_a_layer_that_runs_twice_ends_no_stage() -> None:
    layer = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3), nn.ReLU(), layer, layer)
    assert stage_names(model, image_size=16) == ["0", "2"]


def test_an_activation_in_place_is_the_end_not_what_it_overwrites() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3))
    assert stage_names(model, image_size=16) == ["1", "3"]


def test_a_model_without_feature_maps_is_an_error() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    with pytest.raises(ValueError, match=r"Sequential is not a chain .* at 16 px its stages .* are none; name layers"):
        stage_names(model, image_size=16)


@pytest.mark.parametrize("name", ["test_vit", "levit_128s", "swin_tiny_patch4_window7_224"])
def test_a_convolutional_stem_alone_is_an_error(name: str) -> None:
    """DELTA would hold next to nothing."""
    model = timm.create_model(name)
    with pytest.raises(ValueError, match=r"is not a chain of convolutional stages: .* are only (patch_embed|stem)"):
        stage_names(model, image_size=model.default_cfg["input_size"][-1])


def test_a_layer_named_twice_would_count_twice() -> None:
    with pytest.raises(ValueError, match="layer last is a duplicate"):
        check_layers(Odd(), ["last", "first", "last"])
    assert check_layers(Odd(), "last") == ["last"]


def test_an_unknown_layer_is_an_error_that_lists_what_exists() -> None:
    model = Odd()
    assert check_layers(model, ("first", "last")) == ["first", "last"]
    with pytest.raises(ValueError, match=r"no layer 'layer5': Odd has first, relu, second, gate, last, same, head"):
        check_layers(model, ["last", "layer5"])
    with pytest.raises(ValueError, match=r"got no layer: Odd has first, relu"):
        check_layers(model, [])
