"""Stop between two steps after Ctrl-C, SIGTERM or the end of the terminal."""

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
    """Yield an event that Ctrl-C, SIGTERM and a closed terminal set; a Ctrl-C after that interrupts at once.

    A second SIGTERM does not interrupt, because schedulers often send it twice. Outside the main thread, where Python
    receives no signals, the event is never set.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    kinds = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        kinds.append(signal.SIGHUP)
    handlers = {kind: signal.getsignal(kind) for kind in kinds}

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
    """Return whether any process was asked to stop, so that all stop after the same step.

    Args:
        fabric: The Fabric of the processes.
        stop: Whether this process was asked to stop.
    """
    if fabric.world_size == 1:
        return stop
    votes = fabric.all_reduce(torch.tensor(float(stop), device=fabric.device), reduce_op="sum")
    return bool(votes)
