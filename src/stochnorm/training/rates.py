"""The learning rates of an optimizer, for the host and for the device."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["Rates"]


class Rates:
    """The learning rates of the optimizer's groups: numbers, and on a GPU also tensors.

    A CUDA graph freezes numbers, so there the optimizer reads the rates from tensors (float32, as its fused kernel
    wants them) that keep their place. They are in the groups only inside `with rates:`. Outside, the groups hold
    numbers, so that checkpoints do not depend on the device.

    Args:
        optimizer: The optimizer, with the rates of the start.
        device: Device of the tensors; None for numbers only.
    """

    def __init__(self, optimizer: Any, device: torch.device | None = None) -> None:
        self.optimizer = optimizer
        self.base = [group["lr"] for group in optimizer.param_groups]
        self._tensors = None if device is None else torch.zeros(len(self.base), device=device).unbind()
        self._written: list[float] | None = None

    @property
    def are_tensors(self) -> bool:
        """Return whether the optimizer reads tensors."""
        return self._tensors is not None

    def set(self, factor: float) -> None:
        """Set each rate to that of the start times a factor. The device does not wait."""
        rates = [rate * factor for rate in self.base]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if self._tensors is not None and rates != self._written:
            for tensor, rate in zip(self._tensors, rates, strict=True):
                tensor.fill_(rate)
            self._written = rates

    def __enter__(self) -> None:
        if self._tensors is not None:
            self._numbers = [group["lr"] for group in self.optimizer.param_groups]
            for group, tensor in zip(self.optimizer.param_groups, self._tensors, strict=True):
                group["lr"] = tensor

    def __exit__(self, *_: object) -> None:
        if self._tensors is not None:
            for group, rate in zip(self.optimizer.param_groups, self._numbers, strict=True):
                group["lr"] = rate
