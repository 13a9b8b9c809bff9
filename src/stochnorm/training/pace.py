"""How far the host may run ahead of the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch

__all__ = ["Event", "Pace", "pace_of"]

_AHEAD = 4  # steps: enough that the device never waits; more would only delay Ctrl-C and hold inputs in pinned memory


class Event(Protocol):
    """A point in a device's work, as `torch.cuda.Event`."""

    def record(self) -> None:
        """Put the point behind the work that the device has been given."""

    def synchronize(self) -> None:
        """Wait until the device has come to the point."""


class Pace:
    """Lets the host run a few steps ahead of the device, and not more.

    Without it, steps that wait for nothing are queued by the hundred: Ctrl-C and a loss that is not finite are answered
    seconds late, and the inputs of all queued steps stay in pinned memory.

    Args:
        event: Makes an event.
    """

    def __init__(self, event: Callable[[], Event]) -> None:
        self._event = event
        self._events: deque[Event] = deque()

    def __call__(self) -> None:
        """Note the end of a step that the device was given; wait for the end of the fourth step before it."""
        if len(self._events) < _AHEAD:
            event = self._event()
        else:
            event = self._events.popleft()
            event.synchronize()
        event.record()
        self._events.append(event)


def pace_of(device: torch.device) -> Callable[[], None]:
    """Return what to call after each step; it does nothing on a device other than CUDA."""
    if device.type != "cuda":
        return lambda: None
    return Pace(lambda: torch.cuda.Event(blocking=True))  # type: ignore[no-untyped-call]
