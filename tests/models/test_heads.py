"""New heads of the paper's three backbones and of others; auxiliary classifiers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from stochnorm import build_classifier
from stochnorm.models import Classifier, pooled
from stochnorm.nn.hooks.taps import InputTap, OutputTap

CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def resnet50() -> Classifier:
    return build_classifier("torchvision/resnet50", "random", CLASSES, image_size=64)


@pytest.fixture(scope="module")
def vgg16_bn() -> Classifier:
    return build_classifier("torchvision/vgg16_bn", "random", CLASSES, image_size=32)


@pytest.fixture(scope="module")
def inception_v3() -> Classifier:
    return build_classifier("torchvision/inception_v3", "random", CLASSES)


@pytest.fixture(scope="module")
def timm_inception_v3() -> Classifier:
    return build_classifier("inception_v3", "random", CLASSES)


THREE = pytest.mark.parametrize(
    ("fixture", "name", "width"),
    [("resnet50", "fc", 2048), ("vgg16_bn", "classifier.6", 4096), ("inception_v3", "fc", 2048)],
)


@THREE
def test_the_head_is_new_and_its_input_are_the_features(
    fixture: str, name: str, width: int, request: pytest.FixtureRequest
) -> None:
    classifier: Classifier = request.getfixturevalue(fixture)
    (head,) = classifier.head
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features) == (width, 3)
    assert classifier.head_name == name
    size = classifier.preprocessing.image_size
    with InputTap(classifier.model, [name]) as tap, torch.no_grad():
        logits, auxiliary = classifier.outputs(classifier.model.eval()(torch.randn(2, 3, size, size)))
    assert torch.equal(head(tap.values[name]), logits)
    assert pooled(tap.values[name]).shape == (2, width)
    assert auxiliary == []


@THREE
def test_new_layers_are_drawn_from_a_normal_distribution_of_width_one_hundredth(
    fixture: str, name: str, width: int, request: pytest.FixtureRequest
) -> None:
    for layer in request.getfixturevalue(fixture).new_layers:
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert layer.weight.abs().max() > 0.03  # a uniform distribution of that width ends at 0.017
        assert not layer.bias.any()


@THREE
def test_a_training_step_reaches_every_parameter(
    fixture: str, name: str, width: int, request: pytest.FixtureRequest
) -> None:
    classifier: Classifier = request.getfixturevalue(fixture)
    model, size = classifier.model.train(), classifier.preprocessing.image_size
    logits, auxiliary = classifier.outputs(model(torch.randn(2, 3, size, size)))
    loss = logits.exp().sum() + classifier.auxiliary_weight * sum(each.exp().sum() for each in auxiliary)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad.any() for layer in classifier.new_layers for p in layer.parameters())
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("fixture", ["inception_v3", "timm_inception_v3"])
def test_inception_v3_trains_an_auxiliary_classifier_and_evaluates_without(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    classifier: Classifier = request.getfixturevalue(fixture)
    model: Any = classifier.model
    assert classifier.auxiliary_weight == 0.4
    assert classifier.auxiliary_heads == [model.AuxLogits.fc]
    x = torch.randn(2, 3, 299, 299)
    with OutputTap(model, ["fc", "AuxLogits.fc"]) as tap, torch.no_grad():
        logits, auxiliary = classifier.outputs(model.train()(x))
        assert logits is tap.values["fc"]
        assert len(auxiliary) == 1
        assert auxiliary[0] is tap.values.pop("AuxLogits.fc")
        assert auxiliary[0].shape == (2, 3)
        assert isinstance(model.eval()(x), torch.Tensor)
        assert "AuxLogits.fc" not in tap.values


def test_torchvisions_inception_takes_images_normalized_as_imagenet(inception_v3: Classifier) -> None:
    assert inception_v3.model.transform_input is True
    assert inception_v3.preprocessing.mean == (0.485, 0.456, 0.406)


def test_googlenet_has_two_auxiliary_classifiers() -> None:
    classifier = build_classifier("googlenet", "random", CLASSES, image_size=64)
    assert classifier.auxiliary_weight == 0.3
    logits, auxiliary = classifier.outputs(classifier.model(torch.randn(2, 3, 64, 64)))
    assert [each.shape for each in (logits, *auxiliary)] == [(2, 3)] * 3
    assert {id(layer) for layer in classifier.auxiliary_heads} == {
        id(getattr(classifier.model, name).fc2) for name in ("aux1", "aux2")
    }


@pytest.mark.parametrize("backbone", ["torchvision/inception_v3", "inception_v3", "googlenet"])
def test_auxiliary_classifiers_can_be_left_out(backbone: str) -> None:
    classifier = build_classifier(backbone, "random", CLASSES, image_size=80, auxiliary=False)
    assert (classifier.auxiliary_heads, classifier.auxiliary_weight) == ([], 0.0)
    assert not any("aux" in name.lower() for name, _ in classifier.model.named_parameters())
    assert classifier.model.train()(torch.randn(2, 3, 80, 80)).shape == (2, 3)


@pytest.mark.parametrize(
    ("backbone", "size", "name", "width"),
    [
        ("torchvision/resnet18", 64, "fc", 512),
        ("torchvision/mobilenet_v3_small", 64, "classifier.3", 1024),
        ("squeezenet1_1", 64, "classifier.1", 512),  # a convolution, on maps
        ("dpn48b", 64, "classifier", 832),  # a convolution, on pooled maps
        ("densenet121", 64, "classifier", 1024),
        ("regnety_002", 64, "head.fc", 368),
        ("levit_128s", 224, "head", 384),  # two, with normalization in them
        ("efficientvim_m1", 64, "heads.3", 320),  # one a stage
        ("mobileone_s0", 64, "head.fc", 1024),
    ],
)
def test_backbones_of_both_libraries_train_a_new_head(backbone: str, size: int, name: str, width: int) -> None:
    classifier = build_classifier(backbone, "random", CLASSES, image_size=size)
    assert classifier.head_name == name
    with InputTap(classifier.model, [name]) as tap:
        logits, _ = classifier.outputs(classifier.model(torch.randn(2, 3, size, size)))
        assert pooled(tap.values[name]).shape == (2, width)
    assert logits.shape == (2, 3)
    logits.exp().sum().backward()
    assert all(p.grad is not None and p.grad.any() for module in classifier.head for p in module.parameters())


def test_all_classifiers_of_a_backbone_are_new() -> None:
    classifier = build_classifier("volo_d1_224", "random", CLASSES)
    assert classifier.head == [classifier.model.head, classifier.model.aux_head]


def test_maps_are_pooled_by_their_mean_and_vectors_left() -> None:
    maps = torch.arange(24.0).view(2, 3, 2, 2)
    assert torch.equal(pooled(maps), torch.tensor([[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]))
    vectors = torch.randn(2, 3)
    assert pooled(vectors) is vectors
