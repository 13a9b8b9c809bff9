"""The paper's three networks with an eighth of their channels and random weights, for runs of seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from timm.models.resnet import Bottleneck, ResNet
from timm.models.vgg import VGG
from torch import nn
from torchvision.models import inception

__all__ = ["SMALL", "Small"]

_BLOCK: Any = Bottleneck  # a class; timm declares an object
_VGG16 = (8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M")


class Small(NamedTuple):
    """A small network with 1000 classes. It has as many layers as the large one, with the same names."""

    image_size: int
    """Side of the images that it is made for, pixels."""
    create: Callable[[bool], nn.Module]
    """Function that creates it, with or without its auxiliary classifier."""


def _resnet(auxiliary: bool) -> nn.Module:
    return ResNet(_BLOCK, (3, 4, 6, 3), channels=(8, 16, 32, 64), zero_init_last=False)


def _vgg(auxiliary: bool) -> nn.Module:
    return VGG(list(_VGG16), norm_layer=nn.BatchNorm2d, mlp_ratio=1 / 32)


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


SMALL = {
    "resnet50": Small(32, _resnet),
    "vgg16_bn": Small(32, _vgg),
    "inception_v3": Small(107, _inception),  # the smallest size that its auxiliary classifier can pool
}
"""The networks by their name in torchvision."""
