"""StochNorm when a forward pass runs again: activation checkpointing, and the replay of a CUDA graph."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stochnorm.nn import StochNorm2d, recomputation

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


def test_recomputing_on_another_input_is_an_error() -> None:
    net, added = nn.Sequential(nn.Conv2d(3, 8, 3), StochNorm2d(8)), iter([0.0, 1.0])
    y = checkpoint(lambda x: net(x + next(added)).sin(), torch.randn(4, 3, 10, 10), use_reentrant=False)
    with pytest.raises(RuntimeError, match="on another input than in the forward pass"):
        y.sum().backward()


def test_passes_that_cannot_be_told_apart_are_an_error() -> None:
    """A single one can, whatever its random numbers are."""
    layer, x = StochNorm2d(8), torch.randn(4, 8, 3, 3, requires_grad=True)

    def twice(x: Tensor) -> Tensor:
        return layer(x).sin() + layer(x).cos()

    with pytest.raises(RuntimeError, match="cannot tell several passes of a StochNorm layer apart"):
        checkpoint(twice, x, use_reentrant=False, preserve_rng_state=False).sum().backward()
    checkpoint(lambda x: layer(x).sin(), x, use_reentrant=False, preserve_rng_state=False).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_steps_are_gone_with_the_graph(use_reentrant: bool) -> None:
    """After backward, and without it; a pass that nothing recomputes keeps nothing."""
    net = block()
    for follow in (True, False):
        y = checkpoint(net, torch.randn(4, 3, 10, 10, requires_grad=True), use_reentrant=use_reentrant).mean()
        assert len(recomputation._kept) == 1
        if follow:
            y.backward()
        del y
        gc.collect()
        assert len(recomputation._kept) == 0
    with torch.no_grad():
        net(torch.randn(4, 3, 10, 10))
    kept_by_nothing = net(torch.randn(4, 3, 10, 10))
    assert kept_by_nothing.requires_grad
    assert len(recomputation._kept) == 0


def test_hooks_on_saved_tensors_within_a_checkpoint_change_nothing() -> None:
    plain = block()
    checkpointed = copy.deepcopy(plain)
    x = torch.randn(4, 3, 10, 10)

    def within(x: Tensor) -> Tensor:
        with torch.autograd.graph.save_on_cpu():
            y = checkpointed(x)
        return y.sin()

    torch.manual_seed(0)
    plain(x).sin().sum().backward()
    torch.manual_seed(0)
    checkpoint(within, x, use_reentrant=False).sum().backward()
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)  # type: ignore[arg-type]


def test_a_pass_inside_a_functions_backward_pass_is_one_of_its_own() -> None:
    """Also where a checkpoint holds steps of the layer: it draws, and updates the moving statistics."""
    layer, x = StochNorm2d(8, p=0.0), torch.randn(4, 8, 3, 3)
    layer(x)

    class Within(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            state, before = torch.get_rng_state(), layer.running_mean.clone()  # type: ignore[union-attr]
            with torch.enable_grad():
                layer(x + 5)
            assert not torch.equal(state, torch.get_rng_state()) or x.is_cuda
            assert not torch.equal(before, layer.running_mean)  # type: ignore[arg-type]
            ran.append(1)
            return grad

    ran: list[int] = []
    leaf = torch.randn(4, 8, 3, 3, requires_grad=True)
    Within.apply(leaf).sum().backward()
    for use_reentrant in (True, False):
        checkpoint(lambda x: Within.apply(layer(x)).sin(), leaf, use_reentrant=use_reentrant).sum().backward()
    assert len(ran) == 3


def test_a_function_that_runs_a_layer_again_in_its_backward_pass_repeats_its_step() -> None:
    """As the checkpoints of other libraries do."""
    layer, x = StochNorm2d(8, p=0.5), torch.randn(4, 8, 3, 3, requires_grad=True)
    reference = copy.deepcopy(layer)

    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return layer(x)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            x = ctx.saved_tensors[0].detach().requires_grad_()
            with torch.enable_grad():
                layer(x).backward(grad)
            return x.grad  # type: ignore[return-value]

    torch.manual_seed(0)
    first, second = Again.apply(x), Again.apply(x)
    (first.sin() + second.cos()).sum().backward()
    got, x.grad = x.grad, None
    torch.manual_seed(0)
    first, second = reference(x), reference(x)
    (first.sin() + second.cos()).sum().backward()
    torch.testing.assert_close(got, x.grad)
    assert torch.equal(layer.running_mean, reference.running_mean)  # type: ignore[arg-type]


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
