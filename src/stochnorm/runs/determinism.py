"""Make runs on a GPU repeat bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import deterministic

__all__ = ["repeatable"]


@contextmanager
def repeatable(device: str, *, wanted: bool) -> Iterator[None]:
    """Let CUDA compute only what is the same at each repetition; afterwards PyTorch's settings are as before.

    PyTorch then takes kernels with a fixed order of summation, and cuDNN neither searches for the fastest kernel nor
    takes one that does not repeat. TF32 stays as it is set. On other devices nothing changes: a CPU's results always
    repeat, and nothing is promised for MPS. On CUDA `CUBLAS_WORKSPACE_CONFIG` is set, also if this is not wanted, and
    stays in the environment of the process.

    Args:
        device: Device of the run: `cuda` or another one.
        wanted: Whether to do it.

    Raises:
        ValueError: The network needs an operation for which PyTorch has no kernel that repeats.
    """
    if device == "cuda":
        # PyTorch reads it once, at its first multiplication on a GPU. So a process sets it for its later runs, too. The
        # value is PyTorch's own on Hopper GPUs.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if not wanted or device != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = deterministic
    filled, flags = memory.fill_uninitialized_memory, (cudnn.deterministic, cudnn.benchmark)
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # it would write each new tensor once more
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if "deterministic implementation" in str(error):
            operation = str(error).split()[0]
            raise ValueError(
                f"the network needs {operation}, for which PyTorch has no implementation on a GPU that gives the same "
                "bits at each repetition; remove --deterministic, or choose another backbone"
            ) from error
        raise
    finally:
        cudnn.deterministic, cudnn.benchmark = flags
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
