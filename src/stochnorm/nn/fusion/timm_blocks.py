"""Blocks and layers of timm that normalize, add and activate in one pass; imported only for such a network.

On CPUs, and under `torch.compile`, each of them runs timm's own forward pass.
"""

# mypy: warn-return-any=False

from __future__ import annotations

from typing import Any, cast

from timm.layers.norm_act import BatchNormAct2d
from timm.models import resnet
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from stochnorm.nn.fusion.one_pass import in_one_pass, normalize, on_gpu, untouched

__all__ = ["CLASSES", "OnePassBatchNormAct2d"]


class OnePassBatchNormAct2d(BatchNormAct2d):
    """timm's BatchNormAct2d with its activation in the same pass on GPUs."""

    _fuses = _accelerates = BatchNormAct2d

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor | None = in_one_pass(self, x)
        return super().forward(x) if output is None else output  # type: ignore[no-untyped-call]


class FusedBasicBlock(resnet.BasicBlock):
    _fuses = resnet.BasicBlock

    def forward(self, x: Tensor) -> Tensor:
        if not on_gpu(x):
            return super().forward(x)
        y = self.conv1(x)
        y = self.conv2(cast(nn.Module, self.aa)(_dropped(self.bn1, y, self.drop_block, self.act1)))
        return _added(self, self.bn2, y, x, self.act2)


class FusedBottleneck(resnet.Bottleneck):
    _fuses = resnet.Bottleneck

    def forward(self, x: Tensor) -> Tensor:
        if not on_gpu(x):
            return super().forward(x)
        y = self.conv2(normalize(self.bn1, self.conv1(x), activation=self.act1))
        y = self.conv3(cast(nn.Module, self.aa)(_dropped(self.bn2, y, self.drop_block, self.act2)))
        return _added(self, self.bn3, y, x, self.act3)


class FusedResNet(resnet.ResNet):
    _fuses = resnet.ResNet

    def forward_features(self, x: Tensor) -> Tensor:
        if self.grad_checkpointing or not on_gpu(x):
            return super().forward_features(x)
        network: Any = self
        x = network.maxpool(normalize(network.bn1, network.conv1(x), activation=network.act1))
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
        return x


class FusedDepthwiseSeparableConv(DepthwiseSeparableConv):
    _fuses = DepthwiseSeparableConv

    def forward(self, x: Tensor) -> Tensor:
        if not (on_gpu(x) and _plain_skip(self)):
            return super().forward(x)  # type: ignore[no-untyped-call]
        y = cast(nn.Module, self.aa)(self.bn1(self.conv_dw(x)))
        return normalize(self.bn2, self.conv_pw(self.se(y)), x)


class FusedInvertedResidual(InvertedResidual):
    _fuses = InvertedResidual

    def forward(self, x: Tensor) -> Tensor:
        if not (on_gpu(x) and _plain_skip(self)):
            return super().forward(x)  # type: ignore[no-untyped-call]
        y = self.bn1(self.conv_pw(x))
        y = cast(nn.Module, self.aa)(self.bn2(self.conv_dw(y)))
        return normalize(self.bn3, self.conv_pwl(self.se(y)), x)


def _dropped(norm: nn.Module, y: Tensor, drop: nn.Module, activation: nn.Module) -> Tensor:
    """Normalize, drop and activate; in one pass if nothing is dropped."""
    if type(drop) is nn.Identity and untouched(drop):
        return normalize(norm, y, activation=activation)
    output: Tensor = activation(drop(norm(y)))
    return output


def _added(block: Any, norm: nn.Module, y: Tensor, x: Tensor, activation: nn.Module) -> Tensor:
    """Normalize, add the shortcut of a block and activate; in one pass if nothing comes between them."""
    shortcut: Tensor = x if block.downsample is None else block.downsample(x)
    if block.se is None and block.drop_path is None:
        return normalize(norm, y, shortcut, activation)
    y = norm(y)
    y = y if block.se is None else block.se(y)
    y = y if block.drop_path is None else block.drop_path(y)
    output: Tensor = activation(y + shortcut)
    return output


def _plain_skip(block: Any) -> bool:
    """Return whether a block of EfficientNet adds its input to its last normalization, with nothing in between."""
    return (
        block.has_skip
        and type(block.drop_path) is nn.Identity
        and untouched(block.drop_path)
        and getattr(block, "conv_s2d", None) is None
    )


CLASSES: tuple[type[nn.Module], ...] = (
    *(OnePassBatchNormAct2d, FusedBasicBlock, FusedBottleneck, FusedResNet),
    *(FusedDepthwiseSeparableConv, FusedInvertedResidual),
)
