"""StochNorm when a forward pass runs again: activation checkpointing, and the replay of a CUDA graph."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stochnorm.nn import StochNorm2d

pytestmark = pytest.mark.usefixtures("device")


def block() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        StochNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(8, 8, 3),
        StochNorm2d(8, momentum=None),
    )


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.usefixtures("implementation")
def test_activation_checkpointing_changes_neither_gradients_nor_statistics(use_reentrant: bool) -> None:
    plain = block()
    checkpointed = copy.deepcopy(plain)
    x = torch.randn(4, 3, 10, 10, requires_grad=True)
    for step in range(2):
        torch.manual_seed(step)
        plain(x).square().mean().backward()
        torch.manual_seed(step)
        checkpoint(checkpointed, x, use_reentrant=use_reentrant).square().mean().backward()
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)  # type: ignore[arg-type]
    for a, b in zip(plain.buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.usefixtures("implementation")
def test_checkpointing_an_earlier_pass_is_an_error(use_reentrant: bool) -> None:
    net = block()
    first, second = (
        checkpoint(net, torch.randn(4, 3, 10, 10, requires_grad=True), use_reentrant=use_reentrant) for _ in range(2)
    )
    with pytest.raises(RuntimeError, match="other inputs than its last forward pass"):
        (first + second).mean().backward()


def test_a_cuda_graph_captures_a_training_step(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("CUDA graphs need a GPU")
    layer, x, grad = StochNorm2d(6), torch.randn(8, 6, 5, 5, requires_grad=True), torch.randn(8, 6, 5, 5)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            layer(x).backward(grad)
    torch.cuda.current_stream().wait_stream(side)
    layer.zero_grad(set_to_none=True)
    x.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layer(x).backward(grad)
    masks, counted = set(), layer.num_batches_tracked.item()
    for _ in range(20):
        graph.replay()
        masks.add(tuple(layer._last_step[0].tolist()))  # type: ignore[index]
    assert len(masks) > 1  # each replay draws
    assert layer.num_batches_tracked.item() == counted + 20
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()
