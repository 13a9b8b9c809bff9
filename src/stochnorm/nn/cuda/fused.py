"""Algorithm 1 on GPUs by Triton kernels of our own, with the activation and a residual in the same passes.

Eight passes over the data, as many as any normalization by batch statistics needs (`forward.py` and `backward.py` say
which). A residual costs one pass more in forward, its read; a residual with an activation costs two more in backward.
The statistics of frozen layers are constants: two passes in forward, two or three in backward.

Three launches a direction, no tensor made on the host and nothing that waits for the GPU, so a CUDA graph can capture
it. Sums are made in a fixed order: two runs give the same bits.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor
from torch.nn import Parameter

from stochnorm.nn.composed import is_transformed
from stochnorm.nn.cuda import trust
from stochnorm.nn.cuda.place import current_gpu, place_of

__all__ = ["fits", "frozen_norm", "stoch_norm_"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _placed(input: Tensor) -> bool:
    """Return whether the input is on a device that Triton computes on; the tests use its interpreter, on the CPU."""
    return input.is_cuda and torch.version.hip is None


def fits(input: Tensor, residual: Tensor | None, *vectors: Tensor | None) -> bool:
    """Return whether the kernels support these tensors: on a GPU, of their dtypes, not traced or wrapped."""
    if not _placed(input) or torch.compiler.is_compiling():
        return False
    if input.dtype not in _DTYPES or not trust.allowed() or not _installed() or not input.numel():
        return False
    channels, device = input.size(1), input.device
    for vector in vectors:
        if vector is not None and not (
            vector.dtype is torch.float32
            and vector.device == device
            and vector.numel() == channels
            and vector.is_contiguous()
        ):
            return False
    return (
        type(input) in (Tensor, Parameter)
        and torch._C._has_storage(input)  # batched tensors of vmap have none
        and not torch._C._len_torch_dispatch_stack()
        and not is_transformed()
        and torch._C._get_tracing_state() is None
        and (
            residual is None
            or (residual.shape == input.shape and residual.dtype is input.dtype and residual.device == device)
        )
    )


def stoch_norm_(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    use_batch: Tensor | None,
    momentum: float | None,
    eps: float,
    batches: Tensor | None,
    residual: Tensor | None,
    activation: int,
) -> tuple[Tensor, Tensor]:
    """Compute `stochnorm.nn.functional.stoch_norm_` for arguments that `fits` accepts; the activation is a number."""
    from stochnorm.nn.cuda import autograd, launch

    place = place_of(input)
    input = place.dense(input)
    residual = None if residual is None else place.dense(residual)
    use_batch = None if use_batch is None else use_batch.contiguous()
    statistics = running_mean.new_empty(3, input.size(1))
    with current_gpu(input):
        launch.moments(input, place, statistics, running_mean, running_var, use_batch, momentum, batches)
        output: Tensor = autograd.Normalize.apply(
            input, weight, bias, residual, statistics, None, use_batch, eps, activation, False, place
        )
    return output, statistics


def frozen_norm(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    residual: Tensor | None,
    activation: int,
) -> Tensor:
    """Compute `stochnorm.nn.functional.frozen_norm` for arguments that `fits` accepts; the activation is a number."""
    from stochnorm.nn.cuda import autograd

    place = place_of(input)
    input = place.dense(input)
    residual = None if residual is None else place.dense(residual)
    with current_gpu(input):
        output: Tensor = autograd.Normalize.apply(
            input, weight, bias, residual, mean, var, None, eps, activation, True, place
        )
    return output
