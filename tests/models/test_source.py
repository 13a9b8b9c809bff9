"""The classifier that a backbone was pre-trained with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stochnorm.models import build_classifier
from stochnorm.models.source import source_head, source_network
from stochnorm.models.weights import bundled_state_dict


def test_the_source_network_of_the_bundled_weights_is_the_pretrained_network() -> None:
    import timm

    classifier = build_classifier("tf_efficientnet_lite0", "bundled", ("cat", "dog"), image_size=64)
    head = source_head(classifier)
    assert (head.in_features, head.out_features) == (1280, 1000)
    network = source_network(classifier, head)
    original = timm.create_model("tf_efficientnet_lite0").eval()
    original.load_state_dict(bundled_state_dict(original))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images), original(images), rtol=1e-3, atol=1e-3)
        assert classifier.model.eval()(images).shape == (2, 2)  # the network in training keeps its own head
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_brings_its_own_classifier(tmp_path: Path, prefix: str) -> None:
    earlier = build_classifier("test_resnet", "random", ("a", "b", "c"), image_size=32).model
    state = {f"{prefix}{key}": value for key, value in earlier.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    classifier = build_classifier("test_resnet", str(tmp_path / "weights.pth"), ("cat", "dog"), image_size=32)
    head = source_head(classifier)
    assert head.out_features == 3
    assert torch.equal(head.weight, earlier.get_submodule(classifier.head_name).weight)


def test_without_a_source_classifier_the_error_says_what_to_do(tmp_path: Path) -> None:
    classifier = build_classifier("test_resnet", "random", ("a", "b"), image_size=32)
    with pytest.raises(ValueError, match=r"random weights have no source classes.*--weights bundled"):
        source_head(classifier)
    state = {k: v for k, v in classifier.model.state_dict().items() if not k.startswith(f"{classifier.head_name}.")}
    torch.save(state, tmp_path / "headless.pth")
    with pytest.raises(ValueError, match=r"headless.pth has no classifier fc for .* features"):
        source_head(build_classifier("test_resnet", str(tmp_path / "headless.pth"), ("a", "b"), image_size=32))
    maps = build_classifier("torchvision/squeezenet1_1", "random", ("a", "b"), image_size=64)
    maps.weights = "bundled"
    with pytest.raises(ValueError, match="squeezenet1_1 is not one linear layer"):
        source_head(maps)
