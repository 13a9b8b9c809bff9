"""The obvious implementation of Stochastic Normalization, which the benchmarks compare with."""

from __future__ import annotations

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
