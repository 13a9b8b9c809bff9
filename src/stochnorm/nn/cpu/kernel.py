"""Algorithm 1 on CPUs in one call per direction, by `kernel.cpp`, which the installation compiles if it can.

It computes the same as the composition of ATen's kernels in `functional.py`, for plain tensors in float32, float64 and
bfloat16, and includes a ReLU behind the layer. If it was not built, `stochnorm.nn.cpu.kernel.library` is None and the
composition is used.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from stochnorm.nn.composed import is_transformed
from stochnorm.nn.cpu.compiled import load, threads
from stochnorm.nn.double_backward import twice_differentiable_backward

__all__ = ["UNBOUNDED", "fits", "range_of", "stoch_norm_"]

_pointer, _int, _index, _double = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_double
_FORWARD = [_pointer] * 2 + [_index] * 3 + [_int] + [_pointer] * 5 + [_double] * 4 + [_pointer, _int]
_BACKWARD = [_pointer] * 3 + [_index] * 3 + [_int] + [_pointer] * 4 + [_double] * 3 + [_pointer, _int]
_VECTORS = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32}

UNBOUNDED = (-math.inf, math.inf)
_RANGES = {nn.Identity: UNBOUNDED, nn.ReLU: (0.0, math.inf), nn.ReLU6: (0.0, 6.0)}

library = load("_kernel", "stoch_norm", _VECTORS, forward=_FORWARD, backward=_BACKWARD)
_functions = library or {}


def range_of(activation: nn.Module | None) -> tuple[float, float] | None:
    """Return the range that an activation clamps to; None if the kernel cannot compute the activation."""
    if activation is None:
        return UNBOUNDED
    hooked = activation._forward_hooks or activation._forward_pre_hooks or activation._backward_hooks
    return None if hooked or activation._backward_pre_hooks else _RANGES.get(type(activation))


def fits(input: Tensor, *vectors: Tensor | None) -> bool:
    """Return whether the kernel was built and supports these tensors: on the CPU, its dtypes, not traced or wrapped."""
    if input.dtype not in _functions or input.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    dtype, channels = _VECTORS[input.dtype], input.size(1)
    for vector in vectors:
        if vector is not None and not (
            vector.dtype is dtype and vector.is_cpu and vector.numel() == channels and vector.is_contiguous()
        ):
            return False
    return (
        type(input) in (Tensor, Parameter)
        and torch._C._has_storage(input)  # batched tensors of vmap have none
        and not torch._C._len_torch_dispatch_stack()
        and not is_transformed()
        and torch._C._get_tracing_state() is None
    )


def stoch_norm_(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    use_batch: Tensor,
    momentum: float,
    eps: float,
    output_range: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Compute `stochnorm.nn.functional.stoch_norm_` for arguments that `fits` accepts; the activation is a range."""
    # One tuple for all that has no gradient, since autograd handles each argument; in a cold cache that costs time.
    statistics = running_mean.new_empty(3, input.size(1))
    rest = (running_mean, running_var, use_batch.contiguous(), statistics, momentum, eps, output_range)
    output: Tensor = _Fused.apply(input, weight, bias, rest)
    return output, statistics


class _Fused(torch.autograd.Function):
    """The kernel with its gradient; it fills `statistics` and updates the moving statistics in place."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, rest: tuple[Any, ...]) -> Tensor:
        running_mean, running_var, use_batch, statistics, momentum, eps, output_range = rest
        layout, memory_format = _layout(input)
        input = input.contiguous(memory_format=memory_format)
        output = torch.empty_like(input)
        used = threads(input)
        _functions[input.dtype][0](
            input.data_ptr(),
            output.data_ptr(),
            *layout,
            running_mean.data_ptr(),
            running_var.data_ptr(),
            _address(weight),
            _address(bias),
            use_batch.data_ptr(),
            momentum,
            eps,
            *output_range,
            statistics.data_ptr(),
            used,
        )
        ctx.save_for_backward(input, weight, bias, use_batch)  # which notice if they are changed before backward
        ctx.rest = statistics, eps, output_range, layout, memory_format, used
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, bias, use_batch = ctx.saved_tensors
        statistics, eps, output_range, layout, memory_format, used = ctx.rest
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled() or not torch._C._has_storage(grad_output):
            mean, var, _ = statistics
            if output_range != UNBOUNDED:
                y = torch.native_batch_norm(input.detach(), weight, bias, mean, var, False, 0.0, eps)[0].detach()
                low, high = output_range
                grad_output = grad_output * ((y > low) & (y < high))
            grads = twice_differentiable_backward(grad_output, input, mean, var, weight, use_batch, eps, needs[:3])
            return (*grads, None)
        grad_output = grad_output.contiguous(memory_format=memory_format)
        grad_input = torch.empty_like(input) if needs[0] else None
        gradients = statistics.new_empty(2, input.size(1))
        _functions[input.dtype][1](
            grad_output.data_ptr(),
            input.data_ptr(),
            _address(grad_input),
            *layout,
            statistics.data_ptr(),
            _address(weight),
            _address(bias),
            use_batch.data_ptr(),
            eps,
            *output_range,
            gradients.data_ptr(),
            used,
        )
        grad_weight, grad_bias = gradients.unbind()  # faster than iterating
        return grad_input, grad_weight if needs[1] else None, grad_bias if needs[2] else None, None


def _layout(input: Tensor) -> tuple[tuple[int, int, int, bool], torch.memory_format]:
    """Return `(n, c, s, channels_last)` as in `kernel.cpp`, and the memory format that the input must have."""
    b, c = input.shape[:2]
    values = input.numel() // c
    if values == b:  # one value per channel and image: rows of channels in every memory format
        return (1, c, b, True), torch.contiguous_format
    if not input.is_contiguous():
        for memory_format in (torch.channels_last, torch.channels_last_3d):
            if input.is_contiguous(memory_format=memory_format):
                return (1, c, values, True), memory_format
    return (b, c, values // b, False), torch.contiguous_format


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
