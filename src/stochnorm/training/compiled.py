"""The network of a training step, compiled by `torch.compile`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["compiled", "explained"]

_BACKEND = "inductor"


def compiled(network: nn.Module) -> Any:
    """Return a compiled wrapper of a network; the network itself, its names and its state dict do not change.

    `Fabric.setup` compiles it together with the wrapper of several processes. Evaluation runs the network itself, so
    nothing is compiled for its batches. Hooks that read inputs or outputs of layers, such as DELTA's, are compiled with
    it.
    """
    return torch.compile(network, backend=_BACKEND)


@contextmanager
def explained(backbone: str) -> Iterator[None]:
    """Turn an error of the compiler into one line that says what to do.

    Raises:
        ValueError: The network cannot be compiled.
    """
    from torch._dynamo.exc import TorchDynamoException  # a slow import, which only compiled runs need

    try:
        yield
    except TorchDynamoException as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"torch.compile cannot compile {backbone} ({reason.strip()}); remove --compile") from error
