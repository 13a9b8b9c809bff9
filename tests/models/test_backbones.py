"""Networks by name, and the input that they expect."""

from __future__ import annotations

import pytest
import torchvision

from stochnorm import build_classifier
from stochnorm.models import native_image_size
from stochnorm.models.backbones import Backbone, find_backbone

CLASSES = ("a", "b", "c")


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("torchvision/resnet50", 224),
        ("torchvision/vgg16_bn", 224),
        ("torchvision/inception_v3", 299),
        ("inception_v3", 299),
        ("timm/levit_128s", 224),
        ("test_resnet", 160),
        ("efficientnet_b4", 320),
        ("torchvision/efficientnet_v2_s", 384),
    ],
)
def test_the_native_size_is_known_before_anything_is_built(backbone: str, size: int) -> None:
    assert native_image_size(backbone) == size


def test_without_an_image_size_the_backbones_own_is_taken() -> None:
    assert build_classifier("test_resnet", "random", CLASSES).preprocessing.image_size == 160
    assert build_classifier("test_resnet", "random", CLASSES, image_size=64).preprocessing.image_size == 64


def test_a_name_of_both_libraries_is_timms_unless_said() -> None:
    assert not isinstance(build_classifier("resnet18", "random", CLASSES).model, torchvision.models.ResNet)
    assert isinstance(build_classifier("torchvision/resnet18", "random", CLASSES).model, torchvision.models.ResNet)
    assert find_backbone("timm/resnet18") == find_backbone("resnet18") == Backbone("timm", "resnet18")


def test_an_old_name_of_timm_is_its_new_one() -> None:
    assert find_backbone("gluon_resnet18_v1b").name == "resnet18.gluon_in1k"
    assert find_backbone("tf_inception_v3").branches == ("AuxLogits",)


def test_unknown_names_get_suggestions() -> None:
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet5o'.*did you mean resnet50"):
        native_image_size("resnet5o")
    with pytest.raises(ValueError, match=r"timm has no weights 'resnet18.mine'; choose resnet18, resnet18.a1_in1k, "):
        build_classifier("resnet18.mine", "random", CLASSES)


def test_preprocessing_is_the_backbones_own() -> None:
    lite, tagged, other = (
        find_backbone(name).preprocessing(64) for name in ("tf_efficientnet_lite0", "inception_v3.tf_in1k", "vgg11_bn")
    )
    assert (lite.mean, lite.std, lite.interpolation) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    assert tagged.mean == (0.5, 0.5, 0.5)
    assert other.mean == (0.485, 0.456, 0.406)
    assert other.image_size == 64
