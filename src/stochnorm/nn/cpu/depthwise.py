"""Depthwise convolutions on CPUs by `depthwise.cpp`, which the installation compiles if there is a compiler.

In bfloat16, PyTorch's depthwise convolutions take most of a training step of EfficientNets and MobileNets. The kernel
computes the same to rounding, for plain channels_last tensors in float32 and bfloat16. If it was not built,
`stochnorm.nn.cpu.depthwise.library` is None and PyTorch's convolution is used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn import functional as F

from stochnorm.nn.composed import is_transformed
from stochnorm.nn.cpu.compiled import load, threads

__all__ = ["DepthwiseConv2d"]

_pointer, _shape = ctypes.c_void_p, ctypes.c_int64 * 11
_FORWARD = [_shape, *[_pointer] * 4, ctypes.c_int]
_BACKWARD = [_shape, *[_pointer] * 5, ctypes.c_int]
MOST = 7
"""Maximum number of rows and columns of a kernel, as in depthwise.cpp."""

library = load("_depthwise", "depthwise", (torch.float32, torch.bfloat16), forward=_FORWARD, backward=_BACKWARD)
_functions = library or {}


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with a compiled kernel for depthwise convolutions on CPUs; see `accelerate.py`."""

    _accelerates: type[nn.Conv2d] = nn.Conv2d

    def forward(self, input: Tensor) -> Tensor:
        dtype = self._dtype(input)
        if dtype is None:
            return super().forward(input)
        output: Tensor = _Depthwise.apply(input.to(dtype), self.weight, self.bias, self._geometry(input))
        return output

    def _dtype(self, input: Tensor) -> torch.dtype | None:
        """Return the dtype to compute in, as in `nn.Conv2d`; None if the kernel does not support the input."""
        weight, bias = self.weight, self.bias
        if not (
            not is_transformed()
            and type(input) in (Tensor, Parameter)
            and type(weight) in (Tensor, Parameter)
            and input.is_cpu
            and weight.is_cpu
            and input.dim() == 4
            and input.size(1) == self.in_channels
            and input.is_contiguous(memory_format=torch.channels_last)
            and not torch.compiler.is_compiling()
            and not torch._C._len_torch_dispatch_stack()
            and torch._C._get_tracing_state() is None
        ):
            return None
        dtype = input.dtype
        others = [weight.dtype] if bias is None else [weight.dtype, bias.dtype]
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            if any(each not in _functions for each in (input.dtype, *others)):  # autocast keeps float64
                return None
        elif any(each is not dtype for each in others):
            return None
        if dtype not in _functions or not input.numel() or min(self._geometry(input).output_size) < 1:
            return None
        return dtype

    def _geometry(self, input: Tensor) -> _Geometry:
        left_top: Any = self.padding
        return self._padded(input, (left_top[0], left_top[1]), (2 * left_top[0], 2 * left_top[1]))

    def _padded(self, input: Tensor, before: tuple[int, int], padding: tuple[int, int]) -> _Geometry:
        (kh, kw), stride = self.kernel_size, self.stride[0]
        h, w = input.shape[2:]
        return _Geometry(((h + padding[0] - kh) // stride + 1, (w + padding[1] - kw) // stride + 1), stride, before)


class _Geometry(NamedTuple):
    output_size: tuple[int, int]
    stride: int
    before: tuple[int, int]
    """Number of zeros above and to the left; below and to the right the output size determines it."""


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
        output = torch.empty(
            (*input.shape[:2], *geometry.output_size),
            dtype=input.dtype,
            device=input.device,
            memory_format=torch.channels_last,
        )
        rounded = _rounded(weight, input.dtype)
        start = None if bias is None else _rounded(bias, input.dtype)
        _functions[input.dtype][0](
            _described(input, weight, geometry),
            input.data_ptr(),
            rounded.data_ptr(),
            None if start is None else start.data_ptr(),
            output.data_ptr(),
            threads(input),
        )
        ctx.save_for_backward(input, weight, bias)
        ctx.geometry = geometry
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, bias = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or not torch._C._has_storage(grad_output):  # no storage: batched gradients
            return (*_twice_differentiable_backward(grad_output, input, weight, bias, ctx.geometry, needs), None)
        grad_output = grad_output.contiguous(memory_format=torch.channels_last)
        grad_input = torch.empty_like(input) if needs[0] else None
        grad_weight = torch.empty_like(weight, dtype=torch.float32) if needs[1] else None
        if needs[0] or needs[1]:
            rounded = _rounded(weight, input.dtype)
            _functions[input.dtype][1](
                _described(input, weight, ctx.geometry),
                grad_output.data_ptr(),
                input.data_ptr(),
                rounded.data_ptr(),
                None if grad_input is None else grad_input.data_ptr(),
                None if grad_weight is None else grad_weight.data_ptr(),
                threads(input),
            )
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        grad_bias = grad_output.sum((0, 2, 3), dtype=torch.float32).to(bias.dtype) if needs[2] else None
        return grad_input, grad_weight, grad_bias, None


def _twice_differentiable_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: _Geometry,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Return the gradients by autograd through PyTorch's convolution, for `create_graph=True` and batched gradients."""
    (oh, ow), stride, (top, left) = geometry
    (h, w), (kh, kw) = input.shape[2:], weight.shape[2:]
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        padded = F.pad(input, (left, (ow - 1) * stride + kw - w - left, top, (oh - 1) * stride + kh - h - top))
        start = None if bias is None else bias.to(input.dtype)
        output = F.conv2d(padded, weight.to(input.dtype), start, stride, groups=weight.size(0))
    leaves = [leaf for leaf, needed in zip((input, weight, bias), needs, strict=True) if needed and leaf is not None]
    grads = iter(torch.autograd.grad(output, leaves, grad_output, create_graph=torch.is_grad_enabled()))
    return [next(grads) if needed else None for needed in needs]


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values rounded as autocast does it, in float32."""
    return values.to(dtype).to(torch.float32).contiguous()


def _described(input: Tensor, weight: Tensor, geometry: _Geometry) -> ctypes.Array[ctypes.c_int64]:
    """Return the `Shape` of depthwise.cpp."""
    return _shape(*input.shape, *geometry.output_size, *weight.shape[2:], geometry.stride, *geometry.before)
