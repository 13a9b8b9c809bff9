"""Building: weights, seeds, and the trial run at the image size."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from stochnorm import build_classifier
from stochnorm.models import check_forward
from stochnorm.models.weights import bundled_state_dict

CLASSES = ("a", "b", "c")
TINY = "test_resnet"


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "timm/tf_efficientnet_lite0"])
def test_the_new_head_is_small_and_the_rest_is_pre_trained(backbone: str) -> None:
    pretrained = timm.create_model("tf_efficientnet_lite0")
    state = bundled_state_dict(pretrained)
    classifier = build_classifier(backbone, "auto", CLASSES)
    assert classifier.weights == "bundled"
    for key, value in classifier.model.state_dict().items():
        if not key.startswith("classifier."):
            assert torch.equal(value, state[key]), key
    (head,) = classifier.head
    assert isinstance(head, nn.Linear)
    assert head.weight.shape == (3, 1280)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.bias.any()


def test_bundled_weights_are_of_one_backbone() -> None:
    with pytest.raises(
        ValueError, match="bundled weights are those of tf_efficientnet_lite0; for resnet18 use pretrained"
    ):
        build_classifier("resnet18", "bundled", CLASSES)


def test_building_is_reproducible_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (build_classifier(TINY, "random", CLASSES, seed=s).model.state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_a_failed_download_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: Any, **options: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(OSError, match=r"could not get timm's pretrained weights of .*no route.*--weights FILE"):
        build_classifier("resnet18", "auto", CLASSES)


def test_a_backbone_of_one_size_says_which() -> None:
    with pytest.raises(ValueError, match=r"levit_128s cannot take images of 160 px .*; use --image-size 224"):
        build_classifier("levit_128s", "random", CLASSES, image_size=160)


def test_inception_v3_says_that_its_auxiliary_classifier_needs_299_pixels() -> None:
    with pytest.raises(
        ValueError,
        match=r"the auxiliary classifier of torchvision/inception_v3 cannot take images of 298 px .*"
        r"use --image-size 299, .*or remove it with --no-auxiliary",
    ):
        build_classifier("torchvision/inception_v3", "random", CLASSES, image_size=298)
    with pytest.raises(ValueError, match=r"^torchvision/inception_v3 cannot take images of 74 px .* --image-size 299"):
        build_classifier("torchvision/inception_v3", "random", CLASSES, image_size=74, auxiliary=False)


def test_the_trial_run_changes_nothing() -> None:
    classifier = build_classifier("googlenet", "random", CLASSES, image_size=64)
    model = classifier.model
    model.inception3a.eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    check_forward(classifier)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_trial_run_counts_the_outputs() -> None:
    classifier = build_classifier(TINY, "random", CLASSES)
    classifier.classes = ("a", "b")
    with pytest.raises(ValueError, match=r"its output is \(2, 3\) instead of \(2, 2\)"):
        check_forward(classifier)


@pytest.mark.parametrize("classes", [10, (), ("a", "b", "a"), "cat"])
def test_classes_are_different_names(classes: Any) -> None:
    with pytest.raises(ValueError, match="classes must be different names"):
        build_classifier(TINY, "random", classes)
