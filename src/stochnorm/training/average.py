"""The moving average of a network's weights during training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """The exponential moving average of all floating-point tensors in a network's state dict.

    After step n, counted from 0, average += (1 - d) * (tensor - average) with d = min(decay, (1 + n) / (10 + n)), so
    that the random head of the start is soon forgotten (as in TensorFlow's ExponentialMovingAverage).

    The moving statistics of BatchNorm and StochNorm are averaged like the weights. They belong to the weights of their
    step, and the last ones would not fit averaged weights; averages of both fit to first order. Counters are not
    averaged.

    `update` is a sequence of device operations that reads the factor from a tensor, for CUDA graphs.

    Args:
        network: The network.
        decay: The decay, in (0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._tensors = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
        self._averages = {key: value.clone() for key, value in self._tensors.items()}
        self._weight = torch.ones((), device=next(iter(self._tensors.values())).device)

    def prepare(self, step: int) -> None:
        """Set the factor of a step; the device does not wait."""
        self._weight.fill_(1 - min(self._decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the present values."""
        averages = list(self._averages.values())
        moves = torch._foreach_sub(list(self._tensors.values()), averages)
        torch._foreach_mul_(moves, self._weight)
        torch._foreach_add_(averages, moves)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network its averages within the block; the tensors keep their places."""
        present = {key: tensor.clone() for key, tensor in self._tensors.items()}
        self._copy(self._averages)
        try:
            yield
        finally:
            self._copy(present)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages, for a checkpoint."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the averages of a checkpoint."""
        for key, average in self._averages.items():
            average.copy_(state[key])

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for key, tensor in self._tensors.items():
            tensor.copy_(values[key])
