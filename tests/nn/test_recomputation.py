"""StochNorm when a forward pass runs again: activation checkpointing, and the replay of a CUDA graph."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._composable import checkpoint as composable_checkpoint
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from stochnorm.nn import StochNorm2d, recomputation, set_p

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


def gradients(function: Callable[[nn.Module, Tensor], Tensor], way: Callable[..., Any], backwards: int) -> list[Any]:
    """Of a function of a network whose parts are run in some way, after several backward passes; and the buffers."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), StochNorm2d(8), nn.Sequential(nn.Conv2d(8, 8, 1), StochNorm2d(8))).double()
    x = torch.randn(4, 3, 5, 5).double().requires_grad_()
    loss = function(way(net), x)
    for _ in range(backwards):
        loss.backward(retain_graph=True)
    return [x.grad, *(parameter.grad for parameter in net.parameters()), *net.buffers()]


def test_passes_on_one_input_are_told_apart_by_their_order() -> None:
    """Also where the generator tells nothing: without its state, and with one seed set before each."""

    def passes(net: nn.Module, x: Tensor) -> Tensor:
        torch.manual_seed(1)
        first = net(x) * net(x).cos()
        torch.manual_seed(1)
        return (first + net(x).sin()).sum()

    def part(net: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda x: checkpoint(lambda x: net(x) + net(x).exp(), x, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]

    def plain(net: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda x: net(x) + net(x).exp()

    torch.testing.assert_close(gradients(passes, part, 2), gradients(passes, plain, 2))


def test_checkpoints_of_every_kind_repeat_their_steps() -> None:
    """Selective ones, which count the operations, and modules that checkpoint themselves, one within another."""

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        return net(x).sin().sum()

    def selective(net: nn.Module) -> Callable[[Tensor], Tensor]:
        contexts = partial(create_selective_checkpoint_contexts, [torch.ops.aten.convolution.default])
        return lambda x: checkpoint(net, x, use_reentrant=False, context_fn=contexts)  # type: ignore[no-any-return]

    def composable(net: nn.Module) -> nn.Module:
        composable_checkpoint(net[2])  # type: ignore[index]
        return composable_checkpoint(net)  # type: ignore[return-value]

    expected = gradients(loss, lambda net: net, 1)
    for way in (selective, composable):
        torch.testing.assert_close(gradients(loss, way, 1), expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_p_may_change_between_a_pass_and_its_recomputation(use_reentrant: bool) -> None:
    """Also from and to 1, between passes and within a checkpointed part."""

    def change(net: nn.Module, x: Tensor) -> Tensor:
        outputs = [(set_p(layer, p), layer(x))[1] for p in (1.0, 0.5, 1.0, 0.2)]
        return outputs[0].sin() + outputs[1] * outputs[2].cos() + outputs[3]

    x = torch.randn(4, 8, 3, 3)
    for p in (0.0, 0.5, 1.0):
        layer = StochNorm2d(8)
        grads = []
        for way in (change, lambda *given: checkpoint(change, *given, use_reentrant=use_reentrant)):
            layer.reset_running_stats()
            torch.manual_seed(0)
            leaf = x.clone().requires_grad_()
            loss = way(layer, leaf).sum()
            set_p(layer, p)
            loss.backward()
            grads.append(leaf.grad)
        torch.testing.assert_close(grads[0], grads[1])


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
