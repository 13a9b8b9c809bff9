"""A fused block runs through the Triton kernels and computes what it computed before, for every kind of layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from stochnorm.nn import convert, convert_batch_instance, freeze, fuse
from stochnorm.nn.cuda import batch_instance
from stochnorm.nn.fusion import one_pass as one_pass_module

KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "batch": lambda block: block,
    "stochastic": partial(convert, p=0.5),
    "frozen": partial(freeze, what="statistics"),
    "batch-instance": convert_batch_instance,
}


def step(block: nn.Module, x: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    y = block.train()(x)
    gradients = torch.autograd.grad(y.sum(), [x, *block.parameters()])
    return [y, *gradients, *block.buffers(), block.eval()(x)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("kernels")
def test_a_block(kind: str, monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    if device.type == "cpu":
        monkeypatch.setattr(one_pass_module, "_has_kernels", lambda input: True)
        monkeypatch.setattr(batch_instance, "passes", lambda *arguments, **options: True)
    torch.manual_seed(0)
    block = KINDS[kind](BasicBlock(8, 8))
    x = torch.randn(4, 8, 6, 6)
    wide = copy.deepcopy(block).double()  # in float64, layers and activations run one by one
    assert fuse(block) == 1
    ours = step(block, x)
    names = [node.name() for node in (ours[0].grad_fn, ours[-1].grad_fn)]
    assert set(names) == {"_MixBackward" if kind == "batch-instance" else "NormalizeBackward"}
    for result, right in zip(ours, step(wide, x.double()), strict=True):
        torch.testing.assert_close(result.double(), right.double(), rtol=1e-3, atol=1e-3)
