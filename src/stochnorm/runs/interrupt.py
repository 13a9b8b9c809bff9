"""Stopping between two steps when Ctrl-C or SIGTERM comes in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric

__all__ = ["agreed", "stop_signal"]


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a Ctrl-C after that interrupts at once.

    A second SIGTERM does not: it comes from schedulers, which often send it twice, and not from impatience. Outside the
    main thread, where Python takes no signals, the event is never set.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, handlers[signal.SIGINT])

    for kind in handlers:
        signal.signal(kind, request)
    try:
        yield event
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)


def agreed(fabric: Fabric, stop: bool) -> bool:
    """Whether any process was asked to stop, so that all stop after the same step."""
    if fabric.world_size == 1:
        return stop
    votes = fabric.all_reduce(torch.tensor(float(stop), device=fabric.device), reduce_op="sum")
    return bool(votes)
