"""The compiled kernel: that it is there, that it agrees with ATen's composition, and what it leaves to it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stochnorm.nn import StochNorm2d, stoch_norm
from stochnorm.nn.cpu import kernel

needs_kernel = pytest.mark.skipif(kernel.library is None, reason="the kernel was not built")

SHAPES = [(2, 5), (64, 3), (3, 4, 7), (5, 3, 9, 9), (1, 2, 3, 3), (7, 65, 1, 1), (6, 33, 13, 11), (2, 3, 4, 5, 6)]
SHAPES += [(32, 3, 8, 8), (32, 3, 16, 16)]  # gathered for four sums; the latter in the forward direction alone
BIG = (5, 70, 17, 19)  # more than one thread's share, blocks and rows that do not divide


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="no compiler")
def test_the_kernel_was_built_and_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.library is not None
    calls = []
    forward, backward = kernel._functions[torch.float32]
    spy = (
        lambda *a: (calls.append("forward"), forward(*a)),
        lambda *a: (calls.append("backward"), backward(*a)),
    )
    monkeypatch.setitem(kernel._functions, torch.float32, spy)
    StochNorm2d(3)(torch.randn(4, 3, 5, 5)).sum().backward()
    assert calls == ["forward", "backward"]


def run(x: Tensor, grad: Tensor, use_batch: Tensor, affine: bool = True) -> list[Tensor]:
    """Output, updated statistics, and gradients; the same numbers whenever it is called."""
    c = x.size(1)
    generator = torch.Generator().manual_seed(1)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    mean, var, weight, bias = (torch.randn(c, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4))
    x = x.detach().requires_grad_()
    vectors = [weight.requires_grad_(), bias.requires_grad_()] if affine else []
    y, *statistics = stoch_norm(x, mean, var.abs() + 0.1, *(vectors or [None, None]), use_batch=use_batch)
    gradients = torch.autograd.grad(y, [x, *vectors], grad)
    return [y.detach(), *statistics, *gradients]


def both(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[list[Tensor], list[Tensor]]:
    ours = run(*arguments)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "_functions", {})
        return ours, run(*arguments)  # type: ignore[arg-type]


@needs_kernel
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, BIG])
def test_agrees_with_atens_composition(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], channels_last: bool, affine: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    if channels_last and len(shape) > 3:
        x = x.contiguous(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    mask = torch.rand(shape[1], generator=generator) < 0.5
    ours, atens = both(monkeypatch, x, grad, mask, affine)
    for our, aten in zip(ours, atens, strict=True):
        torch.testing.assert_close(our, aten, rtol=1e-11, atol=1e-11)
    assert ours[0].stride() == x.stride()


@needs_kernel
@pytest.mark.parametrize("channels_last", [False, True])
def test_any_number_of_threads_gives_the_same_to_rounding(channels_last: bool) -> None:
    x = torch.randn(BIG, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    grad, mask = torch.randn_like(x), torch.rand(BIG[1]) < 0.5
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(run(x, grad, mask))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@needs_kernel
@pytest.mark.parametrize("channels_last", [False, True])
def test_statistics_keep_their_digits_far_from_zero(channels_last: bool) -> None:
    x = (1000 + torch.randn(8, 6, 40, 40, generator=torch.Generator().manual_seed(0))).to(torch.float32)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    _, mean, var = stoch_norm(x, torch.zeros(6), torch.ones(6), use_batch=torch.ones(6, dtype=torch.bool), momentum=1.0)
    exact_var, exact_mean = torch.var_mean(x.double(), dim=(0, 2, 3))
    torch.testing.assert_close(mean.double(), exact_mean, rtol=1e-7, atol=0)
    torch.testing.assert_close(var.double(), exact_var, rtol=5e-6, atol=0)


@needs_kernel
@pytest.mark.parametrize("channels_last", [False, True])
def test_bfloat16_rounds_the_float32_result(channels_last: bool) -> None:
    x = torch.randn(BIG, generator=torch.Generator().manual_seed(0)).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    grad, mask = torch.randn_like(x), torch.rand(BIG[1]) < 0.5
    halves, floats = run(x, grad, mask), run(x.float(), grad.float(), mask)
    for half, single in zip(halves, floats, strict=True):
        torch.testing.assert_close(half, single.to(half.dtype), rtol=0, atol=0)


@needs_kernel
def test_bfloat16_keeps_nan_and_infinity() -> None:
    x = torch.tensor([[float("nan")], [1.0], [3e38], [-1e38]]).bfloat16()
    y, *_ = stoch_norm(x, torch.zeros(1), torch.ones(1), torch.full((1,), 4.0), use_batch=torch.tensor([False]))
    assert y[0].isnan()
    assert y[2].isinf()
    assert y[1].isfinite()
    assert y[3] < -1e38


@needs_kernel
@pytest.mark.parametrize("shape", [(4, 3, 6, 6), (4, 3)])
def test_gradients_of_any_strides(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    mask = torch.tensor([True, False, True])
    for grad in (torch.tensor(2.0, dtype=torch.float64).expand(shape), torch.randn(shape[::-1]).double().permute(
        *range(len(shape) - 1, -1, -1)
    )):  # fmt: skip
        for our, aten in zip(*both(monkeypatch, x, grad, mask), strict=True):
            torch.testing.assert_close(our, aten, rtol=1e-11, atol=1e-11)


@needs_kernel
def test_batched_gradients_go_through_autograd() -> None:
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    y, *_ = stoch_norm(x, torch.zeros(3).double(), torch.ones(3).double(), use_batch=torch.tensor([True, False, True]))
    grads = torch.randn(5, 4, 3, 2, 2, dtype=torch.float64)
    batched = torch.autograd.grad(y, x, grads, retain_graph=True, is_grads_batched=True)[0]
    for i, grad in enumerate(grads):
        torch.testing.assert_close(batched[i], torch.autograd.grad(y, x, grad, retain_graph=True)[0])


@pytest.mark.usefixtures("implementation")
def test_another_number_of_channels_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="expected an input of 3 channels"):
        StochNorm2d(3)(torch.randn(2, 4, 2, 2))


@needs_kernel
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(8, 16, 20, 20), (32, 64, 28, 28), (4, 8, 4, 4), (3, 5, 7, 3)])
@pytest.mark.parametrize(("mean", "deviation"), [(1e4, 1e-2), (1e5, 1.0), (-1e3, 1.0), (0.0, 1.0)])
def test_a_mean_far_from_zero_costs_no_digits_that_batch_norm_keeps(
    mean: float, deviation: float, shape: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * deviation + mean
    grad = torch.randn(shape, generator=generator)
    every = torch.ones(shape[1], dtype=torch.bool)

    def errors(function: Callable[[Tensor, Tensor, Tensor], Tensor], memory_format: torch.memory_format) -> list[float]:
        input = x.contiguous(memory_format=memory_format).requires_grad_()
        statistics = torch.zeros(shape[1]), torch.ones(shape[1])
        output = function(input, *statistics)
        (gradient,) = torch.autograd.grad(output, input, grad.contiguous(memory_format=memory_format))
        got = [output, gradient, *statistics]
        exact = x.double().requires_grad_()
        var, center = torch.var_mean(exact, (0, 2, 3))
        expected = F.batch_norm(exact, None, None, training=True)
        (right,) = torch.autograd.grad(expected, exact, grad.double())
        pairs = zip(got, (expected, right, center.detach(), var.detach()), strict=True)
        return [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]

    def ours(input: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        settings = {"use_batch": every, "momentum": 1.0, "eps": 1e-5, "output_range": kernel.UNBOUNDED}
        return kernel.stoch_norm_(input, mean, var, None, None, **settings)[0]

    def theirs(input: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return F.batch_norm(input, mean, var, training=True, momentum=1.0)

    best = errors(theirs, torch.contiguous_format)  # their other memory format loses digits, too
    for error, limit in zip(errors(ours, memory_format), best, strict=True):
        assert error < 1.5 * limit + 2e-6 * (1 + abs(mean) / deviation / 100)
    assert errors(ours, memory_format)[3] < 1e-6
