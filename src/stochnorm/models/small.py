"""The paper's three networks with an eighth of their channels and random weights: the whole path in a second."""

from __future__ import annotations

from typing import Any

from timm.models.resnet import Bottleneck, ResNet
from timm.models.vgg import VGG
from torch import nn
from torchvision.models import inception

__all__ = ["SMALL", "create_small"]

SMALL = {"resnet50": 32, "vgg16_bn": 32, "inception_v3": 107}
"""Names, as torchvision's, and the side of the images they are made for, pixels. 107 is the least that Inception-v3's
auxiliary classifier can pool."""

_BLOCK: Any = Bottleneck  # a class; timm declares an object
_VGG16 = (8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M")


def create_small(name: str, *, auxiliary: bool) -> nn.Module:
    """A small network with 1000 classes; layers are as many as in the large one, and called the same.

    Args:
        name: One of :data:`SMALL`.
        auxiliary: Inception-v3's auxiliary classifier.
    """
    if name == "resnet50":
        return ResNet(_BLOCK, (3, 4, 6, 3), channels=(8, 16, 32, 64), zero_init_last=False)
    if name == "vgg16_bn":
        return VGG(list(_VGG16), norm_layer=nn.BatchNorm2d, mlp_ratio=1 / 32)
    return _inception(auxiliary)


def _inception(auxiliary: bool) -> nn.Module:
    def thin(channels: int) -> int:
        return channels if channels == 3 else channels // 8  # all of Inception-v3's are multiples of 8

    def conv(in_channels: int, out_channels: int, **options: Any) -> nn.Module:
        return inception.BasicConv2d(thin(in_channels), thin(out_channels), **options)  # type: ignore[no-any-return]

    def block(kind: Any) -> Any:
        return lambda *args, **options: kind(*args, conv_block=conv, **options)

    kinds = ("InceptionA", "InceptionB", "InceptionC", "InceptionD", "InceptionE", "InceptionAux")
    blocks = [conv, *(block(getattr(inception, kind)) for kind in kinds)]
    model = inception.Inception3(aux_logits=auxiliary, inception_blocks=blocks, init_weights=False)
    model.fc = nn.Linear(thin(2048), 1000)
    if auxiliary:
        model.AuxLogits.conv1 = conv(128, 768, kernel_size=1)  # 5 x 5 of a map that has one pixel here
        model.AuxLogits.fc = nn.Linear(thin(768), 1000)
    return model  # type: ignore[no-any-return]
