"""StochNorm1d/2d/3d as a citizen of PyTorch."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn

from stochnorm.nn import StochNorm1d, StochNorm2d, StochNorm3d, stoch_norm

pytestmark = pytest.mark.usefixtures("device")

LAYERS = [
    pytest.param(StochNorm1d, nn.BatchNorm1d, (8, 5), id="(b, c)"),
    pytest.param(StochNorm1d, nn.BatchNorm1d, (8, 5, 3), id="(b, c, l)"),
    pytest.param(StochNorm2d, nn.BatchNorm2d, (4, 5, 3, 2), id="(b, c, h, w)"),
    pytest.param(StochNorm3d, nn.BatchNorm3d, (2, 5, 2, 3, 2), id="(b, c, d, h, w)"),
]


def pair(stoch: type, batch: type, **options: Any) -> tuple[nn.Module, nn.Module]:
    """A StochNorm and a BatchNorm layer of 5 channels in the same state, which is not the initial one."""
    p = options.pop("p", 0.5)
    theirs = batch(5, **options)
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2.0)
    ours = stoch(5, p=p, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("momentum", [0.1, 0.001, None])
@pytest.mark.parametrize(("stoch", "batch", "shape"), LAYERS)
def test_p_one_is_batch_norm(stoch: type, batch: type, shape: tuple[int, ...], momentum: float | None) -> None:
    ours, theirs = pair(stoch, batch, p=1.0, momentum=momentum)
    for _ in range(3):
        x, grad = torch.randn(shape), torch.randn(shape)
        results = []
        for layer in (ours, theirs):
            input = x.clone().requires_grad_()
            output = layer(input)
            grads = torch.autograd.grad(output, [input, *layer.parameters()], grad)
            results.append([output, *grads, *layer.buffers()])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(("stoch", "batch", "shape"), LAYERS)
def test_eval_is_batch_norm(stoch: type, batch: type, shape: tuple[int, ...]) -> None:
    ours, theirs = pair(stoch, batch)
    x = torch.randn(shape)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.usefixtures("implementation")
def test_moving_statistics_are_those_of_batch_norm_whatever_p(momentum: float | None) -> None:
    ours, theirs = pair(StochNorm2d, nn.BatchNorm2d, momentum=momentum)
    for _ in range(3):
        x = torch.randn(4, 5, 3, 2)
        ours(x), theirs(x)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("implementation")
def test_each_channel_is_one_branch_of_the_two() -> None:
    ours, theirs = pair(StochNorm2d, nn.BatchNorm2d)
    x = torch.randn(4, 5, 3, 2) * 2 + 1
    moving = copy.deepcopy(theirs).eval()(x)
    batch = theirs(x)
    seen = set()
    for _ in range(20):
        y = copy.deepcopy(ours)(x)
        for c in range(5):
            of_batch, of_moving = (torch.allclose(y[:, c], branch[:, c], atol=1e-6) for branch in (batch, moving))
            assert of_batch != of_moving
            seen.add(of_batch)
    assert seen == {True, False}


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9])
def test_p_is_the_probability_of_batch_statistics(p: float) -> None:
    torch.manual_seed(0)
    layer = StochNorm1d(10_000, p=p)
    y = layer(torch.randn(4, 10_000) + 5)  # by batch statistics the mean of a channel is 0, by moving ones about 5
    share = (y.mean(0).abs() < 1e-4).double().mean().item()
    assert share == pytest.approx(p, abs=0.02)


def test_the_mask_is_drawn_anew_each_step_from_torchs_generator() -> None:
    layer, x = StochNorm1d(64), torch.randn(8, 64) + 5
    torch.manual_seed(1)
    first, second = copy.deepcopy(layer)(x), copy.deepcopy(layer)(x)
    torch.manual_seed(1)
    again = copy.deepcopy(layer)(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_other_generators_are_untouched() -> None:
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    StochNorm1d(64)(torch.randn(8, 64))
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


def test_evaluation_draws_nothing(random_state: Callable[[], Tensor]) -> None:
    layer, state = StochNorm1d(64).eval(), random_state()
    layer(torch.ones(8, 64))
    assert torch.equal(random_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.usefixtures("implementation")
def test_dtype_and_memory_format_come_out_as_they_go_in(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    x = torch.randn(4, 6, 5, 3).to(dtype).contiguous(memory_format=memory_format).requires_grad_()
    layer = StochNorm2d(6)
    with torch.autocast(torch.get_default_device().type, dtype=torch.bfloat16 if dtype is torch.float32 else dtype):
        y = layer(x)
    y.backward(torch.randn_like(y))
    assert x.grad is not None
    for tensor in (y, x.grad):
        assert tensor.dtype == dtype
        assert tensor.is_contiguous(memory_format=memory_format)
    assert {t.dtype for t in (*layer.parameters(), layer.weight.grad, layer.running_var)} == {torch.float32}


def test_a_layer_in_half_precision_tracks_in_half_precision() -> None:
    layer, x = StochNorm2d(6).bfloat16(), torch.randn(8, 6, 5, 3).bfloat16().add(2).requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    assert {t.dtype for t in (y, x.grad, layer.weight.grad, layer.running_mean)} == {torch.bfloat16}
    expected = 0.1 * x.detach().float().mean((0, 2, 3))
    torch.testing.assert_close(layer.running_mean.float(), expected, rtol=1e-2, atol=1e-3)


def test_deep_copy_and_pickle_keep_everything_and_share_nothing() -> None:
    layer = StochNorm2d(5, p=0.3, momentum=0.2, eps=1e-3)
    layer(torch.randn(4, 5, 3, 3))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
        assert repr(twin) == repr(layer)
        assert "p=0.3" in repr(twin)
        assert all(torch.equal(a, b) for a, b in zip(layer.buffers(), twin.buffers(), strict=True))
        twin(torch.randn(4, 5, 3, 3))
        assert not torch.equal(twin.running_mean, layer.running_mean)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_outside_the_unit_interval_is_an_error(p: float) -> None:
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\]"):
        StochNorm2d(3, p=p)
    layer = StochNorm2d(3)
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\]"):
        layer.p = p


def test_one_value_per_channel_raises_as_batch_norm_does() -> None:
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training") as theirs:
        nn.BatchNorm1d(3)(torch.randn(1, 3))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training") as ours:
        StochNorm1d(3)(torch.randn(1, 3))
    assert str(ours.value) == str(theirs.value)


def test_wrong_number_of_dimensions_raises_as_batch_norm_does() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        StochNorm2d(3)(torch.randn(4, 3))


def test_no_moving_statistics_is_an_error_unless_p_is_one() -> None:
    with pytest.raises(ValueError, match="track_running_stats"):
        StochNorm2d(3, track_running_stats=False)
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(
        StochNorm2d(3, track_running_stats=False, p=1)(x), nn.BatchNorm2d(3, track_running_stats=False)(x)
    )


def saved_bytes(layer: nn.Module, x: Tensor) -> int:
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = layer(x)
    del output
    return sum(saved.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("implementation")
def test_memory_saved_for_backward_is_batch_norms_plus_vectors_of_length_c(dtype: torch.dtype) -> None:
    x, c = torch.randn(16, 32, 28, 28).to(dtype).requires_grad_(), 32
    ours, theirs = saved_bytes(StochNorm2d(c), x), saved_bytes(nn.BatchNorm2d(c), x)
    assert theirs >= x.nbytes
    assert ours <= theirs + 8 * c * 4


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("training", [True, False])
@torch._inductor.config.patch(fallback_random=True)  # draw the same mask as eager
def test_compiles_as_one_graph(training: bool) -> None:
    eager, _ = pair(StochNorm2d, nn.BatchNorm2d)
    eager.train(training)
    layer = copy.deepcopy(eager)
    compiled = torch.compile(layer, fullgraph=True)
    x, grad = torch.randn(4, 5, 6, 6), torch.randn(4, 5, 6, 6)
    results = []
    for module in (eager, compiled):
        torch.manual_seed(0)
        input = x.clone().requires_grad_()
        output = module(input)
        results.append([output, *torch.autograd.grad(output, [input, *module.parameters()], grad)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(eager.buffers(), layer.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    assert (eager.num_batches_tracked == 1) == training


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_exports_in_eval() -> None:
    layer, _ = pair(StochNorm2d, nn.BatchNorm2d)
    layer.eval()
    x = torch.randn(4, 5, 6, 6)
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), layer(x))


def test_other_devices_take_another_kernel_for_the_statistics() -> None:
    """The code for MPS, on the device that computes nothing."""
    layer = StochNorm2d(4, device="meta")
    x = torch.empty(2, 4, 5, 5, device="meta", requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("shape", [(0, 5, 3, 2), (4, 5, 0, 2)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_empty_batch_is_a_step_as_in_batch_norm(shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    """It draws nothing, and changes nothing but the number of batches; so does the function."""
    ours, theirs = pair(StochNorm2d, nn.BatchNorm2d)
    results = []
    for layer in (ours, theirs):
        x = torch.empty(shape).contiguous(memory_format=memory_format).requires_grad_()
        y = layer(x)
        results.append([y, *torch.autograd.grad(y.sum(), [x, *layer.parameters()]), *layer.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert results[0][0].shape == shape
    mask = torch.zeros(5, dtype=torch.bool)
    y, mean, var = stoch_norm(torch.empty(shape), ours.running_mean, ours.running_var, use_batch=mask)
    assert y.shape == shape
    assert torch.equal(mean, ours.running_mean)
    assert torch.equal(var, ours.running_var)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_statistics_whose_tracking_is_switched_off_are_used_and_not_updated(p: float) -> None:
    """As Lightning freezes BatchNorm."""
    layer = StochNorm2d(5, p=p)
    layer.track_running_stats = False
    before = copy.deepcopy(layer.state_dict())
    moved = layer(torch.randn(4, 5, 3, 2) + 5).mean((0, 2, 3)) > 1  # by moving statistics the mean stays
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert moved.any() == (p == 0.0) or p == 0.5
    assert moved.all() == (p == 0.0) or p == 0.5
    layer.track_running_stats = True
    layer(torch.randn(4, 5, 3, 2) + 5)
    assert not torch.equal(layer.running_mean, before["running_mean"])
    assert layer.num_batches_tracked == 1
