"""The probability p of a layer, and masks drawn with it on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["HasProbability", "check_p", "draw_mask", "is_captured"]


def check_p(p: float) -> float:
    """Return p as a float; raise ValueError unless it is a probability."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(
            f"p must be in [0, 1], got {p!r}: it is the probability that a channel is normalized by batch "
            "statistics (1 is BatchNorm, the paper uses 0.5)"
        )
    return float(p)


def draw_mask(channels: int, p: Tensor) -> Tensor:
    """Return a mask that follows p, a tensor on the device, in CUDA graphs and under `torch.compile`.

    Args:
        channels: Number of channels c.
        p: Probability; float32, ().

    Returns:
        The mask, (c,): bool; under `torch.compile` 1 with probability p, else 0, in float32. The product over one
        factor is an operation that the compiler does not repeat in the backward pass. Otherwise it would compute the
        mask there from the saved p, which may have changed.
    """
    if torch.compiler.is_compiling():
        return (p - torch.rand(channels, 1, device=p.device)).ceil().prod(1)
    return torch.empty(channels, dtype=torch.bool, device=p.device).bernoulli_(p)


def is_captured(input: Tensor) -> bool:
    """Return whether a CUDA graph records the operations on a tensor."""
    return input.is_cuda and torch.cuda.is_current_stream_capturing()


class HasProbability(nn.Module):
    """A layer with a probability p, as a number and as a tensor on the device of its statistics."""

    num_features: int
    running_mean: Tensor | None
    # p on the layer's device, float32, for compiled code and CUDA graphs, which would keep the value of a number. It is
    # no buffer: its dtype does not follow the layer's, it is not in the state dict, and DDP does not send it.
    _p_tensor: Tensor

    @property
    def p(self) -> float:
        """The probability that a channel is normalized by batch statistics."""
        return self._p

    @p.setter
    def p(self, p: float) -> None:
        self._p = check_p(p)
        if "_p_tensor" in self.__dict__:
            self._p_tensor.fill_(self._p)
        else:
            self._place_p()

    def _place_p(self) -> None:
        """Make the tensor of p on the device of the statistics, so that it can be changed in place at any time."""
        like: Tensor | None = cast(Any, self).weight if self.running_mean is None else self.running_mean
        with torch.inference_mode(False):
            self._p_tensor = torch.full((), self._p, dtype=torch.float32, device=None if like is None else like.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._follow()
        return self

    def _follow(self) -> None:
        """Make the tensor of p again if the statistics are on another device."""
        if self.running_mean is not None and self.running_mean.device != self._p_tensor.device:
            self._place_p()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._place_p()  # not that of the layer that was copied; earlier versions have none

    def _draw(self, input: Tensor) -> Tensor:
        """Draw a mask from torch's generator on the input's device."""
        if not (input.is_cuda or torch.compiler.is_compiling()):
            return torch.rand(self.num_features, device=input.device) < self._p
        p = self._p_tensor
        if p.device != input.device:  # the layer was moved without Module.to, as by FSDP or load_state_dict
            p = torch.full((), self._p, device=input.device) if p.is_meta else p.to(input.device)
            if not torch.compiler.is_compiling():
                self._p_tensor = p
        return draw_mask(self.num_features, p)
