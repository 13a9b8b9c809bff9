from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stochnorm.nn import functional
from stochnorm.nn.cpu import kernel


@pytest.fixture(params=["kernel", "aten", "gpu"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, device: torch.device) -> str:
    """Every way to compute the layer on the device, one after the other.

    Without a GPU, the composition for GPUs runs on the CPU, with the kernels that only GPUs have written out below.
    """
    way = str(request.param)
    if device.type != "cpu":
        if way != "gpu":
            pytest.skip("for CPUs")
        return way
    if way == "kernel" and kernel.library is None:
        pytest.skip("the kernel was not built")
    if way != "kernel":
        monkeypatch.setattr(kernel, "_functions", {})
    if way == "gpu":
        monkeypatch.setattr(functional, "_on_gpu", lambda input: input.device.type != "meta")
        for name in ("batch_norm_elemt", "batch_norm_backward_reduce", "batch_norm_backward_elemt"):
            monkeypatch.setattr(torch, name, globals()[f"_{name}"])
    return way


def _channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(-1, *[1] * (like.dim() - 2))


def _check_parameters(input: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None) -> None:
    """What the kernels take: statistics, scale and shift in float32 for half precision, else in the input's dtype."""
    wide = torch.float32 if input.dtype in (torch.bfloat16, torch.float16) else input.dtype
    assert {mean.dtype, invstd.dtype, wide if weight is None else weight.dtype} == {wide}


def _batch_norm_elemt(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
) -> Tensor:
    """As synchronized batch normalization calls it; ``eps`` is not used."""
    _check_parameters(input, mean, invstd, weight)
    output = (input.to(mean.dtype) - _channels(mean, input)) * _channels(invstd, input)
    output = output if weight is None else output * _channels(weight, input)
    return (output if bias is None else output + _channels(bias, input)).to(input.dtype)


def _batch_norm_backward_reduce(
    grad: Tensor, input: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None, *needs: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sums of the gradient and of gradient times centered input; gradients of scale and shift."""
    _check_parameters(input, mean, invstd, weight)
    assert grad.stride() == input.stride() or min(grad.shape) == 1
    reduced = [dim for dim in range(input.dim()) if dim != 1]
    wide = grad.to(mean.dtype)
    sum_g = wide.sum(reduced)
    sum_g_centered = (wide * (input.to(mean.dtype) - _channels(mean, input))).sum(reduced)
    return sum_g, sum_g_centered, sum_g_centered * invstd, sum_g.clone()


def _batch_norm_backward_elemt(
    grad: Tensor, input: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None,
    sum_g: Tensor, sum_g_centered: Tensor, count: Tensor,
) -> Tensor:  # fmt: skip
    """The gradient of the input of a batch normalization with these sums over ``count`` values."""
    _check_parameters(input, mean, invstd, weight)
    assert count.dtype is torch.int32
    m = count.sum()
    centered = input.to(mean.dtype) - _channels(mean, input)
    through = _channels(sum_g / m, input) + centered * _channels(invstd.square() * sum_g_centered / m, input)
    scale = invstd if weight is None else invstd * weight
    return ((grad.to(mean.dtype) - through) * _channels(scale, input)).to(input.dtype)
