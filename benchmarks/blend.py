"""Obvious implementations of Stochastic Normalization, which the benchmarks compare with."""

from __future__ import annotations

import numpy as np
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F


class TwoBranchBlend(nn.BatchNorm2d):
    """Both branches in full by F.batch_norm, then s * batch + (1 - s) * moving, s drawn per channel with p = 0.5."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        s = (torch.rand(self.num_features, device=input.device) < 0.5).to(input.dtype).view(-1, 1, 1)
        moving = F.batch_norm(
            input, self.running_mean.clone(), self.running_var.clone(), self.weight, self.bias, False, 0.0, self.eps
        )
        batch = F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum, self.eps
        )
        return s * batch + (1 - s) * moving


class HostMask(nn.BatchNorm2d):
    """Both branches in full, mixed by a mask that NumPy draws on the host: the Transfer-Learning-Library's formula.

    z = (1 - s) z0 + s z1, with z0 normalized by the moving and z1 by the batch statistics. The copy of the mask to the
    GPU waits for it, so that no CUDA graph can hold the layer.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean, var = self.running_mean, self.running_var
        z0 = F.batch_norm(input, mean.clone(), var.clone(), self.weight, self.bias, False, self.momentum, self.eps)
        z1 = F.batch_norm(input, mean, var, self.weight, self.bias, True, self.momentum, self.eps)
        drawn = np.random.binomial(1, 0.5, (1, self.num_features, 1, 1))  # noqa: NPY002 (a global generator, as there)
        s = torch.from_numpy(drawn).float().to(input.device)
        return ((1 - s) * z0 + s * z1).to(input.dtype)


def blend_everywhere(model: nn.Module) -> nn.Module:
    """Replace every BatchNorm2d, in place; timm's, which carries its activation, by two layers."""
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            blend = TwoBranchBlend(child.num_features, child.eps, child.momentum)
            blend.load_state_dict(child.state_dict())
            tail = [child.drop, child.act] if isinstance(child, BatchNormAct2d) else []
            setattr(model, name, nn.Sequential(blend, *tail) if tail else blend)
        else:
            blend_everywhere(child)
    return model
