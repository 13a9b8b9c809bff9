"""Sums over the training images since the last validation, kept on the device of the training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Reading", "Sums"]

_PERIOD = 0.25  # seconds between two looks at sums that lie on another device than the CPU


class Reading(NamedTuple):
    """The sums after some step, on the host."""

    step: int
    """Steps that are done since the start of the run."""
    sums: dict[str, float]
    """Number of images, and the sums by name."""


class Sums:
    """Sums since the last validation, and the first step whose loss is not finite.

    They are one tensor that keeps its place in memory, so that a CUDA graph can add to it and one copy reads it all. It
    is float64 (float32 on MPS, which has no float64). It adds in the order of the steps, so that the sums have the bits
    of sums of Python's numbers.

    Whoever reads the sums gets an error if a loss was not finite. So nothing of such a run is validated or written, on
    whichever device and however late it is noticed.

    Args:
        names: Names of the values that each step adds. The last one is the loss that the step minimizes.
        device: Device of the values.
        step: Steps that are done.
        start: Sums that a run resumes with.
        each_step: `poll` reads at each step, as is fast on the CPU.
    """

    def __init__(
        self,
        names: Sequence[str],
        device: torch.device,
        *,
        step: int = 0,
        start: Mapping[str, float] | None = None,
        each_step: bool = True,
    ) -> None:
        self.names = tuple(names)
        self.each_step = each_step
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        begin = dict.fromkeys(("images", *self.names), 0.0) | dict(start or {})
        values = [step, 0, 0, *(begin[name] for name in ("images", *self.names))]
        self._values = torch.tensor(values, dtype=self.dtype, device=device)
        self._step, self._bad_step, self._bad_loss, self._images = self._values[:4].unbind()
        self._sums = self._values[4:]
        self._copy = _Copy(self._values) if device.type == "cuda" else None
        self._next = -math.inf

    def add(self, values: Tensor, images: int) -> None:
        """Add the values of a step. It waits for nothing, and a CUDA graph can capture it.

        Args:
            values: Sums over the images of the step, in the order of the names and the dtype of the sums.
            images: Number of these images.
        """
        loss = values[-1]
        self._step.add_(1)
        first = ~loss.isfinite() & (self._bad_step == 0)
        self._bad_step.copy_(torch.where(first, self._step, self._bad_step))
        self._bad_loss.copy_(torch.where(first, loss, self._bad_loss))
        self._images.add_(images)
        self._sums.add_(values)

    def read(self) -> Reading:
        """Return the sums; wait for the device.

        Raises:
            FloatingPointError: A loss was not finite; the message says which and at which step.
        """
        return self._reading(self._values.tolist())

    def poll(self) -> Reading | None:
        """Return the sums for the display, or None if it is not yet time; never wait for a CUDA device.

        It reads at each step if asked so. Else it looks a few times a second: on CUDA it starts a copy into pinned
        memory, and a later call returns it when the copy has ended; on another device it reads.

        Raises:
            FloatingPointError: A loss was not finite.
        """
        if self.each_step:
            return self.read()
        if self._copy is not None and self._copy.pending:
            values = self._copy.ended()
            return None if values is None else self._reading(values)
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + _PERIOD
        if self._copy is None:
            return self.read()
        self._copy.start(self._values)
        return None

    def clear(self) -> None:
        """Begin again at zero, after a validation."""
        self._values[3:].zero_()
        if self._copy is not None:
            self._copy.pending = False

    def _reading(self, values: list[float]) -> Reading:
        step, bad_step, bad_loss, images, *sums = values
        if bad_step:
            raise FloatingPointError(f"the loss is {bad_loss} at step {int(bad_step)}")
        return Reading(int(step), {"images": int(images), **dict(zip(self.names, sums, strict=True))})


class _Copy:
    """A copy of a CUDA tensor in pinned memory, made while host and device work."""

    def __init__(self, values: Tensor) -> None:
        self._host = torch.empty_like(values, device="cpu", pin_memory=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.pending = False

    def start(self, values: Tensor) -> None:
        """Copy the values as they are after the work that the device has been given."""
        self._host.copy_(values, non_blocking=True)
        self._event.record()
        self.pending = True

    def ended(self) -> list[float] | None:
        """Return the values once the copy has ended."""
        if not self._event.query():  # type: ignore[no-untyped-call]
            return None
        self.pending = False
        values: list[float] = self._host.tolist()
        return values
