"""The paper's networks with an eighth of their channels."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from stochnorm.models import build_classifier
from stochnorm.models.backbones import find_backbone
from stochnorm.models.small import SMALL


def kinds(model: nn.Module) -> Counter[type[nn.Module]]:
    return Counter(type(m) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d)))


@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize("name", SMALL)
def test_it_has_as_many_convolutions_and_normalizations_as_the_large_one(name: str) -> None:
    with torch.device("meta"):
        library = "timm" if name == "vgg16_bn" else "torchvision"  # timm's has convolutions before the head
        large = find_backbone(f"{library}/{name}").create(pretrained=False, auxiliary=True)
    small = find_backbone(f"small/{name}").create(pretrained=False, auxiliary=True)
    assert kinds(small) == kinds(large)
    assert sum(p.numel() for p in small.parameters()) < 6e6


@pytest.mark.parametrize("name", SMALL)
def test_it_trains_at_its_size_with_a_new_head(name: str) -> None:
    classifier = build_classifier(f"small/{name}", "random", ("cat", "dog", "newt"))
    size = classifier.preprocessing.image_size
    assert size == SMALL[name].image_size
    logits, auxiliary = classifier.outputs(classifier.model.train()(torch.randn(4, 3, size, size)))
    assert logits.shape == (4, 3)
    assert [each.shape for each in auxiliary] == ([(4, 3)] if name == "inception_v3" else [])
    (logits.sum() + sum(each.sum() for each in auxiliary)).backward()
    assert all(p.grad is not None for p in classifier.model.parameters())


def test_layers_of_resnet_are_called_as_in_the_large_one() -> None:
    model = find_backbone("small/resnet50").create(pretrained=False, auxiliary=False)
    for name in ("layer1.2.conv3", "layer2.3.conv3", "layer3.5.conv3", "layer4.2.conv3"):  # DELTA's
        assert isinstance(model.get_submodule(name), nn.Conv2d)


def test_it_has_no_pretrained_weights() -> None:
    with pytest.raises(OSError, match="it has none; use --weights random"):
        build_classifier("small/resnet50", "auto", ("cat", "dog"))
    with pytest.raises(ValueError, match="unknown backbone 'small/resnet18'"):
        find_backbone("small/resnet18")
