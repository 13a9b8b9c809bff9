"""Blocks of torchvision's networks that normalize, add and activate in one pass; imported only for such a network.

On CPUs, and under `torch.compile`, each of them runs torchvision's own forward pass.
"""

# mypy: disallow-subclassing-any=False, warn-return-any=False

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import densenet, inception, mobilenetv2, regnet, resnet
from torchvision.models.googlenet import BasicConv2d as GoogLeNetConv2d
from torchvision.ops.misc import Conv2dNormActivation, Conv3dNormActivation

from stochnorm.nn.fusion.one_pass import normalize, on_gpu, untouched
from stochnorm.nn.fusion.sequential import InPairs, run_in_pairs

__all__ = ["CLASSES"]

_RELU = nn.ReLU()


class FusedBasicBlock(resnet.BasicBlock):
    _fuses = resnet.BasicBlock

    def forward(self, x: Tensor) -> Tensor:
        if not on_gpu(x):
            return super().forward(x)
        y = normalize(self.bn1, self.conv1(x), activation=self.relu)
        y = self.conv2(y)
        return normalize(self.bn2, y, x if self.downsample is None else self.downsample(x), self.relu)


class FusedBottleneck(resnet.Bottleneck):
    _fuses = resnet.Bottleneck

    def forward(self, x: Tensor) -> Tensor:
        if not on_gpu(x):
            return super().forward(x)
        y = normalize(self.bn1, self.conv1(x), activation=self.relu)
        y = normalize(self.bn2, self.conv2(y), activation=self.relu)
        y = self.conv3(y)
        return normalize(self.bn3, y, x if self.downsample is None else self.downsample(x), self.relu)


class FusedResNet(resnet.ResNet):
    _fuses = resnet.ResNet

    def _forward_impl(self, x: Tensor) -> Tensor:
        if not on_gpu(x):
            return super()._forward_impl(x)
        x = self.maxpool(normalize(self.bn1, self.conv1(x), activation=self.relu))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4, self.avgpool):
            x = stage(x)
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


class FusedInvertedResidual(mobilenetv2.InvertedResidual):
    _fuses = mobilenetv2.InvertedResidual

    def forward(self, x: Tensor) -> Tensor:
        if self.use_res_connect and on_gpu(x) and untouched(self.conv):
            return run_in_pairs(self.conv, x, residual=x)
        return super().forward(x)


class FusedInceptionConv2d(inception.BasicConv2d):
    _fuses = inception.BasicConv2d

    def forward(self, x: Tensor) -> Tensor:
        return normalize(self.bn, self.conv(x), activation=_RELU) if on_gpu(x) else super().forward(x)


class FusedGoogLeNetConv2d(GoogLeNetConv2d):
    _fuses = GoogLeNetConv2d

    def forward(self, x: Tensor) -> Tensor:
        return normalize(self.bn, self.conv(x), activation=_RELU) if on_gpu(x) else super().forward(x)


class FusedDenseLayer(densenet._DenseLayer):
    _fuses = densenet._DenseLayer

    def forward(self, input: Tensor | list[Tensor]) -> Tensor:
        features = [input] if isinstance(input, Tensor) else input
        if self.memory_efficient or not on_gpu(features[0]):
            output: Tensor = super().forward(input)
            return output
        y = self.conv1(normalize(self.norm1, torch.cat(features, 1), activation=self.relu1))
        y = self.conv2(normalize(self.norm2, y, activation=self.relu2))
        return F.dropout(y, self.drop_rate, self.training) if self.drop_rate > 0 else y


class FusedTransition(InPairs, densenet._Transition):
    _fuses = densenet._Transition


class FusedConv2dNormActivation(InPairs, Conv2dNormActivation):
    _fuses = Conv2dNormActivation


class FusedConv3dNormActivation(InPairs, Conv3dNormActivation):
    _fuses = Conv3dNormActivation


class FusedSimpleStem(InPairs, regnet.SimpleStemIN):
    _fuses = regnet.SimpleStemIN


CLASSES: tuple[type[nn.Module], ...] = (
    *(FusedBasicBlock, FusedBottleneck, FusedResNet, FusedInvertedResidual),
    *(FusedInceptionConv2d, FusedGoogLeNetConv2d, FusedDenseLayer, FusedTransition),
    *(FusedConv2dNormActivation, FusedConv3dNormActivation, FusedSimpleStem),
)
