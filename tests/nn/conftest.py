from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stochnorm.nn import aten, timm_layers
from stochnorm.nn.cpu import kernel
from stochnorm.nn.cuda import fused
from stochnorm.nn.fusion import one_pass as one_pass_module
from stochnorm.nn.fusion import timm_blocks


@pytest.fixture(params=["kernel", "aten", "gpu"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, device: torch.device) -> str:
    """Return the name of a way to compute the layer on the device; a test runs once for each way.

    Without a GPU, the composition for GPUs runs on the CPU, with the kernels that only GPUs have written out below. The
    Triton kernels have tests of their own.
    """
    way = str(request.param)
    if device.type != "cpu":
        if way != "gpu":
            pytest.skip("for CPUs")
        monkeypatch.setattr(fused, "_placed", lambda input: False)
        return way
    if way == "kernel" and kernel.library is None:
        pytest.skip("the kernel was not built")
    if way != "kernel":
        monkeypatch.setattr(kernel, "_functions", {})
    if way == "gpu":
        monkeypatch.setattr(aten, "on_gpu", lambda input: input.device.type != "meta")
        for name in ("batch_norm_elemt", "batch_norm_backward_reduce", "batch_norm_backward_elemt"):
            monkeypatch.setattr(torch, name, globals()[f"_{name}"])
    return way


@pytest.fixture
def one_pass(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> list[nn.Module]:
    """Let the CPU take the way of the GPU; lists the layers that ran with what is behind them."""
    ran: list[nn.Module] = []
    original = one_pass_module.in_one_pass

    def in_one_pass(layer: nn.Module, *args: Any) -> Tensor | None:
        output = original(layer, *args)
        if output is not None:
            ran.append(layer)
        return output

    if device.type == "cpu":
        monkeypatch.setattr(one_pass_module, "_has_kernels", lambda input: True)
        monkeypatch.setattr(one_pass_module, "_fits", lambda *tensors: True)
    for module in (one_pass_module, timm_blocks, timm_layers):
        monkeypatch.setattr(module, "in_one_pass", in_one_pass)
    return ran


def _channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(-1, *[1] * (like.dim() - 2))


def _check(tensors: tuple[Tensor, ...], vectors: tuple[Tensor | None, ...]) -> None:
    """Check the arguments of a kernel.

    Statistics, scale and shift must be float32 for half precision, else of the input's dtype, and without gaps. The
    kernels for channels_last, (b, c) included, ignore strides: both tensors must then have that memory order.
    """
    dtype = tensors[0].dtype
    wide = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    given = [vector for vector in vectors if vector is not None]
    assert {vector.dtype for vector in given} == {wide}
    assert all(vector.is_contiguous() and vector.dim() == 1 for vector in given)
    assert {tensor.dtype for tensor in tensors} == {dtype}
    assert len({tensor.shape for tensor in tensors}) == 1
    assert any(all(order(tensor) for tensor in tensors) for order in (Tensor.is_contiguous, _channels_last))


def _channels_last(tensor: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.dim() in formats and tensor.is_contiguous(memory_format=formats[tensor.dim()])


def _batch_norm_elemt(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
) -> Tensor:
    """Normalize as synchronized batch normalization does; `eps` is not used."""
    _check((input,), (mean, invstd, weight, bias))
    output = (input.to(mean.dtype) - _channels(mean, input)) * _channels(invstd, input)
    output = output if weight is None else output * _channels(weight, input)
    return (output if bias is None else output + _channels(bias, input)).to(input.dtype)


def _batch_norm_backward_reduce(
    grad: Tensor, input: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None,
    input_g: bool, weight_g: bool, bias_g: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Return the sums of the gradient and of gradient times centered input; gradients of scale and shift."""
    _check((grad, input), (mean, invstd, weight))
    if weight is None and (weight_g or bias_g):
        raise RuntimeError("tensor does not have a device")
    reduced = [dim for dim in range(input.dim()) if dim != 1]
    wide = grad.to(mean.dtype)
    sum_g = wide.sum(reduced)
    sum_g_centered = (wide * (input.to(mean.dtype) - _channels(mean, input))).sum(reduced)
    sums = (sum_g, sum_g_centered) if input_g else (None, None)
    return (*sums, sum_g_centered * invstd if weight_g else None, sum_g.clone() if bias_g else None)


def _batch_norm_backward_elemt(
    grad: Tensor, input: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None,
    sum_g: Tensor, sum_g_centered: Tensor, count: Tensor,
) -> Tensor:  # fmt: skip
    """Return the gradient of the input of a batch normalization with these sums over `count` values."""
    _check((grad, input), (mean, invstd, weight, sum_g, sum_g_centered))
    assert count.dtype is torch.int32
    assert count.device == input.device
    m = count.sum()
    centered = input.to(mean.dtype) - _channels(mean, input)
    through = _channels(sum_g / m, input) + centered * _channels(invstd.square() * sum_g_centered / m, input)
    scale = invstd if weight is None else invstd * weight
    return ((grad.to(mean.dtype) - through) * _channels(scale, input)).to(input.dtype)
